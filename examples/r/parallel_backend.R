# parallel_backend.R: parallel_backend for R, over glue.c.

# Calls the glue, and signals a condition that it returns.
pb_call <- function(name, ...) {
    value <- .Call(name, ..., PACKAGE = "parallel_backend_glue")
    if (inherits(value, "interrupt")) {
        signalCondition(value)
        invokeRestart("abort") # as R does where nobody handles Ctrl-C
    }
    if (inherits(value, "pb_error")) stop(value)
    value
}

# Maps that `expr` calls, directly or deep inside a package, use this backend.
with_backend <- function(backend, expr, n_jobs = -1L, inner_max_num_threads = 0L, params = NULL) {
    scope <- pb_call("push_backend", backend, n_jobs, inner_max_num_threads, params)
    on.exit(pb_call("pop_backend", scope))
    force(expr)
}

# BLAS and OpenMP use `n` threads while `expr` runs.
with_thread_limit <- function(n, expr) {
    scope <- pb_call("push_thread_limit", n)
    on.exit(pb_call("pop_thread_limit", scope))
    force(expr)
}

# A native task: it may run on any thread, as no R function may.
native_task <- function(name) pb_call("task", name)

# The task's results for every number of x. An error has the index of its item, from 1.
pb_map <- function(task, x) pb_call("map", task, as.double(x))

# Workers that a map would use here.
n_jobs <- function() pb_call("n_jobs")

backends <- function() strsplit(pb_call("backends"), ",", fixed = TRUE)[[1]]

thread_pools <- function() as.data.frame(pb_call("thread_pools"), stringsAsFactors = FALSE)
