# parallel::mclapply and mcparallel fork an R that uses the library before, after and while its children do.
# Usage: Rscript mclapply.R GLUE R_EXAMPLE, with the glue of examples/r, and the folder of its R functions.

arguments <- commandArgs(trailingOnly = TRUE)
dyn.load(arguments[1])
source(file.path(arguments[2], "parallel_backend.R"))
forks <- 200

normal_cdf <- native_task("normal_cdf")
x <- seq(-5, 5, length.out = 101)
right <- function(y) isTRUE(all.equal(y, pnorm(x), tolerance = 1e-9))
use <- function(n_jobs = 3L) right(with_backend("threading", pb_map(normal_cdf, x), n_jobs = n_jobs))
files <- function() length(list.files("/proc/self/fd"))
threads <- function() length(list.files("/proc/self/task"))
all_true <- function(results) length(results) > 0 && all(vapply(results, isTRUE, NA))

# In R's forked children mclapply may be called again.
child <- function(i) {
    nested <- if (i %% 10 == 0) all_true(parallel::mclapply(1:2, function(j) use(), mc.cores = 2)) else TRUE
    use() && nested && use(2L)
}

stopifnot(use())
before <- files()
# A process for each element ...
stopifnot(all_true(parallel::mclapply(seq_len(forks), child, mc.cores = 4, mc.preschedule = FALSE)))
stopifnot(use())
# ... and four at a time that run while this process maps.
for (i in seq_len(forks / 4)) {
    jobs <- lapply(1:4, function(j) parallel::mcparallel(child(j)))
    stopifnot(use())
    stopifnot(all_true(parallel::mccollect(jobs)))
}
stopifnot("no file stays open" = files() == before, "threads stay few" = threads() < 10)
cat(2 * forks, "processes forked by mclapply and mcparallel\n")
