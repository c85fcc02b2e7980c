# example.R: R chooses a backend for a scope, and a native map runs over its vectors.
# Usage: Rscript example.R GLUE, with the glue that R CMD SHLIB built. The script `test` does both.

arguments <- commandArgs(trailingOnly = TRUE)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
dyn.load(arguments[1])
source(file.path(here, "parallel_backend.R"))

normal_cdf <- native_task("normal_cdf")
x <- seq(-5, 5, length.out = 1001)
right <- function(y) stopifnot(all.equal(y, pnorm(x), tolerance = 1e-9))
threaded <- function() with_backend("threading", pb_map(normal_cdf, x), n_jobs = 2L)
in_children <- function() for (y in parallel::mclapply(1:4, function(i) threaded(), mc.cores = 2)) right(y)

# parallel::mclapply forks R. Its children start threads of their own: here, before the parent has any, ...
in_children()

cat("backends:", backends(), "\n")
for (backend in c("sequential", "threading")) {
    y <- with_backend(backend, {
        cat(backend, "with", n_jobs(), "worker(s)\n")
        pb_map(normal_cdf, x)
    })
    right(y)
}

# Arguments that cannot be used, and tasks that fail, are R conditions.
error <- tryCatch(with_backend("thread", 1), PB_ERR_UNKNOWN_BACKEND = identity)
cat("error:", conditionMessage(error), "\n")
stopifnot(inherits(error, "pb_error"), is.na(error$index))

error <- tryCatch(pb_map(normal_cdf, c(0, 1, Inf)), PB_ERR_TASK_FAILED = identity)
cat("error:", conditionMessage(error), "\n")
stopifnot(error$index == 3, grepl("x is not finite", conditionMessage(error)))
right(pb_map(normal_cdf, x))

# R's own BLAS is seen; inside the tasks of two workers it keeps to its share of the CPUs, after them it is as before.
blas <- function() subset(thread_pools(), user_api == "blas")
print(blas()[c("internal_api", "version", "scope", "num_threads")], row.names = FALSE)
stopifnot("R uses a BLAS without threads (Debian: install libopenblas0-pthread)" = nrow(blas()) >= 1)
before <- blas()$num_threads
inside <- with_backend("threading", pb_map(native_task("blas_threads"), 1:8), n_jobs = 2L, inner_max_num_threads = 1L)
stopifnot(inside == 1, blas()$num_threads == before)
stopifnot(with_thread_limit(1L, blas()$num_threads) == 1, blas()$num_threads == before)
m <- matrix(sin(1:10000), 100)
stopifnot(all.equal(with_thread_limit(1L, crossprod(m)), crossprod(m)))
cat("BLAS threads:", before[1], "outside,", inside[1], "in the tasks\n")

# Ctrl-C cancels the map, R's handlers see it, and the next map works.
seen <- tryCatch(pb_map(native_task("ctrl_c"), 1:2), interrupt = function(condition) "interrupted")
stopifnot(identical(seen, "interrupted"))
right(pb_map(normal_cdf, x))
cat("interrupted, and alive\n")

# ... and here, after it has used some.
in_children()
right(threaded())
cat("mclapply: maps in forked children agree\n")
