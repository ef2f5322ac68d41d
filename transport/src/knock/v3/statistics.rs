//! Whether many messages of one length look like uniform bytes: Pearson's chi-square test at every position.

/// What was seen so far.
pub(super) struct Counts {
    messages: u64,
    /// How often each byte stood at each position.
    bytes: Vec<[u32; 256]>,
    /// How often each two high halves stood at each two adjacent positions.
    pairs: Vec<[u32; 256]>,
}

impl Counts {
    pub(super) fn new(length: usize) -> Self {
        Self {
            messages: 0,
            bytes: vec![[0; 256]; length],
            pairs: vec![[0; 256]; length - 1],
        }
    }

    pub(super) fn add(&mut self, message: &[u8]) {
        assert_eq!(message.len(), self.bytes.len());
        self.messages += 1;
        for (counts, byte) in self.bytes.iter_mut().zip(message) {
            counts[usize::from(*byte)] += 1;
        }
        for (counts, pair) in self.pairs.iter_mut().zip(message.windows(2)) {
            counts[usize::from(pair[0] & 0xf0 | pair[1] >> 4)] += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        let theirs = other.bytes.iter().chain(&other.pairs);
        for (ours, theirs) in self.bytes.iter_mut().chain(&mut self.pairs).zip(theirs) {
            for (our, their) in ours.iter_mut().zip(theirs) {
                *our += their;
            }
        }
    }

    /// The smallest p-value of all tests (each byte, each adjacent pair, each bit), corrected after Holm. Uniform
    /// messages fall below any small bound no more often than the bound says.
    pub(super) fn p_value(&self) -> f64 {
        let bytes = self.bytes.iter().map(|counts| chi_square(counts));
        let pairs = self.pairs.iter().map(|counts| chi_square(counts));
        let bits = self.bytes.iter().flat_map(|counts| {
            (0..8).map(|bit| {
                let set = |(byte, count): (usize, &u32)| if byte >> bit & 1 == 1 { *count } else { 0 };
                let ones = counts.iter().enumerate().map(set).sum::<u32>();
                chi_square(&[ones, counts.iter().sum::<u32>() - ones])
            })
        });
        let all: Vec<f64> = bytes.chain(pairs).chain(bits).collect();
        // Holm multiplies the smallest by the number of tests, the next by one less, and so on: for "is there any that
        // fails" the first step decides.
        let smallest = all.iter().copied().fold(1.0, f64::min);
        (smallest * all.len() as f64).min(1.0)
    }
}

/// The p-value of these counts under the uniform distribution.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = counts.iter().copied().map(f64::from).sum::<f64>() / counts.len() as f64;
    let statistic: f64 = counts
        .iter()
        .map(|n| (f64::from(*n) - expected).powi(2) / expected)
        .sum();
    upper_gamma(counts.len() as u32 - 1, statistic / 2.0)
}

/// Q(a, x), the regularised upper incomplete gamma function, for a = `freedom` / 2: by its series below a + 1 and by
/// its continued fraction (Lentz's method) above.
fn upper_gamma(freedom: u32, x: f64) -> f64 {
    let a = f64::from(freedom) / 2.0;
    if x <= 0.0 {
        return 1.0;
    }
    // Γ(1/2) = √π, Γ(1) = 1, Γ(a + 1) = a Γ(a).
    let (start, ln_start) = if freedom.is_multiple_of(2) {
        (1.0, 0.0)
    } else {
        (0.5, std::f64::consts::PI.ln() / 2.0)
    };
    let ln_gamma = ln_start + (0..(freedom - 1) / 2).map(|k| (start + f64::from(k)).ln()).sum::<f64>();
    let front = (a * x.ln() - x - ln_gamma).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        let mut n = a;
        while term > sum * f64::EPSILON {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return 1.0 - front * sum;
    }
    let tiny = f64::MIN_POSITIVE;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for n in 1..500 {
        let n = f64::from(n);
        let factor = -n * (n - a);
        b += 2.0;
        d = 1.0 / (factor * d + b);
        c = b + factor / c;
        fraction *= c * d;
    }
    front * fraction
}

#[test]
fn p_values_are_those_of_the_tables() {
    for (freedom, statistic, p) in [
        (1, 3.841_459, 0.05),
        (1, 10.827_566, 0.001),
        (2, 5.991_465, 0.05),
        (255, 293.247_8, 0.05),
        (255, 330.519_7, 0.001),
        (255, 254.333_5, 0.5),
    ] {
        let found = upper_gamma(freedom, statistic / 2.0);
        assert!((found - p).abs() < 1e-5, "{freedom} {statistic}: {found}, not {p}");
    }
    assert_eq!(chi_square(&[500, 500]), 1.0);
    assert!(chi_square(&[1000, 0]) < 1e-100);
}
