//! The budget tree: every task owns an exact share of its parent's CPUs.

/// Workers that `n_jobs` asks for where `cpus()` CPUs can be used: positive as it is, negative as joblib counts
/// (-1 all, -2 all but one, never below 1). `n_jobs` is not 0.
pub fn normalise(n_jobs: i32, cpus: impl FnOnce() -> i32) -> i32 {
    if n_jobs > 0 { n_jobs } else { (cpus() + 1).saturating_add(n_jobs).max(1) }
}

/// The share of worker `worker` when `workers` workers divide `cpus` CPUs: the shares sum to the whole where there
/// are at least as many CPUs as workers, and the first workers get the odd ones. At least 1.
pub fn share(cpus: i32, workers: usize, worker: usize) -> i32 {
    let cpus = usize::try_from(cpus).unwrap_or(1);
    let workers = workers.max(1);
    let odd = usize::from(worker < cpus % workers);
    i32::try_from((cpus / workers + odd).max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_the_whole() {
        // joblib gives each of 9 workers on 16 CPUs one thread and leaves 7 CPUs idle.
        let shares: Vec<_> = (0..9).map(|worker| share(16, 9, worker)).collect();
        assert_eq!(shares, [2, 2, 2, 2, 2, 2, 2, 1, 1]);
        for cpus in 1..70 {
            for workers in 1..=cpus {
                let sum: i32 =
                    (0..workers).map(|worker| share(cpus, workers as usize, worker as usize)).sum();
                assert_eq!(sum, cpus);
            }
        }
        assert_eq!(share(2, 5, 4), 1);
    }

    #[test]
    fn negative_counts_are_joblibs() {
        assert_eq!([-1, -2, -3, -100, i32::MIN].map(|n| normalise(n, || 8)), [8, 7, 6, 1, 1]);
        assert_eq!(normalise(20, || 8), 20);
    }
}
