# The work of ours.c on R's mclapply, which forks for each call.
library(parallel)
workers <- as.integer(commandArgs(trailingOnly = TRUE)[1])

row <- function(what, rounds, work) {
    work()
    times <- vapply(seq_len(rounds), function(i) {
        begin <- Sys.time()
        work()
        as.numeric(Sys.time() - begin, units = "secs")
    }, 0)
    cat(sprintf("%s\t%.3f\n", what, 1e3 * median(times)))
}

arrays <- lapply(1:8, function(i) raw(8 * 2^20))
row("2 trivial items", 51, function() mclapply(1:2, function(i) i, mc.cores = workers))
row("100,000 trivial items", 5, function() mclapply(1:100000, function(i) i, mc.cores = workers))
row("8 arrays of 8 MiB, echoed", 5, function() mclapply(arrays, function(x) x, mc.cores = workers))
