//! Random tests by seed: the same every time, more on demand, and one that fails says how to be
//! repeated.

use std::sync::LazyLock;

use rayon::ThreadPool;

/// Numbers that look random and come from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("lists are short");
        usize::try_from(self.below(length)).expect("it is below the length")
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }
}

/// Says which seed it was when a test fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PROOFMILL_SEED={} repeats this", self.0);
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "how many seeds a run tries is whoever runs it's to say"
)]
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a 64-bit integer")),
    )
}

/// Checks `few` seeds, as many as `PROOFMILL_SEEDS` says, or the one of `PROOFMILL_SEED`; returns how
/// many.
pub(crate) fn each_seed(few: u64, mut check: impl FnMut(&mut Random)) -> u64 {
    let seeds = match from_environment("PROOFMILL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("PROOFMILL_SEEDS").unwrap_or(few),
    };
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let _named = Named(seed);
        check(&mut Random::new(seed));
    }
    count
}

/// Pools of one, two, three and eight threads.
pub(crate) static POOLS: LazyLock<[ThreadPool; 4]> = LazyLock::new(|| {
    [1, 2, 3, 8].map(|threads| {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        builder.build().expect("threads start")
    })
});
