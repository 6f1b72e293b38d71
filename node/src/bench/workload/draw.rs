//! Draws that look random and are the same in every run.

/// A sequence of numbers from a seed (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014: SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, which is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let product = u128::from(self.next()) * count as u128;
        usize::try_from(product >> 64).expect("less than a count that is a usize")
    }

    /// A number from 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Zipf's law with exponent 1 over places from 0: place n comes with weight 1 / (n + 1).
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    /// By place: the sum of the weights up to it.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(places: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=places)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { sums }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let whole = self.sums.last().copied().unwrap_or_default();
        let point = random.unit() * whole;
        let place = self.sums.partition_point(|sum| *sum <= point);
        place.min(self.sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Zipf};

    #[test]
    fn draws_stay_below_their_count_and_reach_every_place() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[random.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 800), "{seen:?}");
    }

    #[test]
    fn the_first_place_of_zipf_comes_twice_as_often_as_the_second() {
        let (zipf, mut random) = (Zipf::new(1_000), Random::new(2));
        let mut seen = vec![0_u32; 1_000];
        for _ in 0..100_000 {
            seen[zipf.draw(&mut random)] += 1;
        }
        // 1 / H(1000) = 13.4%.
        assert!((12_800..14_000).contains(&seen[0]), "{}", seen[0]);
        assert!((6_300..7_100).contains(&seen[1]), "{}", seen[1]);
        assert!(seen[500..].iter().sum::<u32>() > 8_000);
    }
}
