//! The loads: what each item costs. All but the giant's have the same mean, and as many items for each worker.

const ITEMS_EACH: usize = 2000;
const MEAN_NS: f64 = 10_000.0;
/// The bound where no item is long beside a worker's share.
const MANY_ITEMS: f64 = 1.03;

/// The costs of a map's items.
pub struct Load {
    pub name: &'static str,
    /// How far above the lower bound, the larger of a worker's share and the longest item, a run may be.
    pub bound: f64,
    /// The sum of the costs of all items before each, and of all.
    sums: Vec<u64>,
    longest: u64,
}

impl Load {
    fn new(name: &'static str, bound: f64, costs: impl Iterator<Item = u64>) -> Load {
        let mut sums = vec![0];
        let mut longest = 0;
        let mut sum = 0;
        for cost in costs {
            longest = longest.max(cost);
            sum += cost;
            sums.push(sum);
        }
        Load { name, bound, sums, longest }
    }

    /// Costs in proportion to `weights`.
    fn weighted(name: &'static str, bound: f64, weights: Vec<f64>) -> Load {
        let unit = MEAN_NS * weights.len() as f64 / weights.iter().sum::<f64>();
        Load::new(name, bound, weights.into_iter().map(|weight| (weight * unit) as u64))
    }

    pub fn items(&self) -> usize {
        self.sums.len() - 1
    }

    pub fn cost(&self, begin: usize, end: usize) -> u64 {
        self.sums[end] - self.sums[begin]
    }

    pub fn total(&self) -> u64 {
        self.cost(0, self.items())
    }

    pub fn longest(&self) -> u64 {
        self.longest
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
fn random(index: usize) -> u64 {
    let mut z = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn weights(workers: usize, weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let n = ITEMS_EACH * workers;
    (0..n).map(|index| weight(index, n)).collect()
}

fn uniform(workers: usize) -> Load {
    Load::weighted("uniform", MANY_ITEMS, weights(workers, |_, _| 1.0))
}

fn ascending(workers: usize) -> Load {
    Load::weighted("triangle, ascending", MANY_ITEMS, weights(workers, |index, _| index as f64))
}

fn descending(workers: usize) -> Load {
    Load::weighted("triangle, descending", MANY_ITEMS, weights(workers, |index, n| (n - index) as f64))
}

fn few_heavy(workers: usize) -> Load {
    let heavy = |index| random(index) % 100 == 0;
    Load::weighted(
        "1 % are 100 times",
        1.06,
        weights(workers, |index, _| if heavy(index) { 100.0 } else { 1.0 }),
    )
}

fn last_heavy(workers: usize) -> Load {
    let weight = |index: usize, n: usize| if index * 100 >= n * 97 { 30.0 } else { 1.0 };
    Load::weighted("last 3 % are 30 times", MANY_ITEMS, weights(workers, weight))
}

fn bimodal(workers: usize) -> Load {
    let heavy = |index| random(index) % 200 == 0;
    Load::weighted(
        "1 of 200 is 1000 times",
        1.15,
        weights(workers, |index, _| if heavy(index) { 1000.0 } else { 1.0 }),
    )
}

fn zipf(workers: usize) -> Load {
    let n = ITEMS_EACH * workers;
    let mut ranks: Vec<_> = (0..n).collect();
    ranks.sort_unstable_by_key(|index| random(*index));
    Load::weighted("Zipf 1.1", 1.06, ranks.into_iter().map(|rank| ((rank + 1) as f64).powf(-1.1)).collect())
}

fn giant_last(workers: usize) -> Load {
    let n = ITEMS_EACH * workers;
    let cost = MEAN_NS as u64;
    let giant = ITEMS_EACH as u64 * cost;
    Load::new("last is a worker's share", 2.02, (0..n).map(|index| if index + 1 == n { giant } else { cost }))
}

pub const ALL: [fn(usize) -> Load; 8] =
    [uniform, ascending, descending, few_heavy, last_heavy, bimodal, zipf, giant_last];
