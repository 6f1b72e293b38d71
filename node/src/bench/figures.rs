//! What many measurements of one thing come to.

/// Decimals of a figure: more of them would be noise, and JSON would not give them back exactly.
pub const DECIMALS: i32 = 4;

/// Least, quartiles and median, to [`DECIMALS`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// The least.
    pub min: f64,
    /// A quarter is not above it.
    pub lower: f64,
    /// Half is not above it.
    pub median: f64,
    /// Three quarters are not above it.
    pub upper: f64,
}

impl Figures {
    /// Those of some values; zeros of none. Between two values they are interpolated.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            min: rounded(sorted.first().copied().unwrap_or_default()),
            lower: rounded(at_quarter(&sorted, 1)),
            median: rounded(at_quarter(&sorted, 2)),
            upper: rounded(at_quarter(&sorted, 3)),
        }
    }

    /// Lower quartile, median, upper quartile.
    #[must_use]
    pub const fn spread(&self) -> [f64; 3] {
        [self.lower, self.median, self.upper]
    }
}

fn rounded(value: f64) -> f64 {
    let scale = 10_f64.powi(DECIMALS);
    (value * scale).round() / scale
}

fn at_quarter(sorted: &[f64], quarter: usize) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let (below, rest) = (last * quarter / 4, last * quarter % 4);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * rest as f64 / 4.0
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn quartiles_lie_between_the_values_beside_them() {
        let figures = Figures::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((figures.min, figures.spread()), (1.0, [2.0, 3.0, 4.0]));
        let figures = Figures::of([1.0, 2.0]);
        assert_eq!(figures.spread(), [1.25, 1.5, 1.75]);
        assert_eq!(Figures::of([7.0]).spread(), [7.0; 3]);
        assert_eq!(Figures::of([]), Figures::default());
        assert_eq!(Figures::of([2.0 / 3.0]).median, 0.6667);
    }
}
