/* glue.c: parallel_backend for R's .Call.
 *
 * R's errors and interrupts are longjmps, which must not cross the library. So a function here first ends
 * what it has begun, then returns its result, or a condition that the R code (parallel_backend.R) signals.
 */
#include "tasks.h"
#include <string.h>

#include <R.h>
#include <R_ext/Rdynload.h>
#include <Rinternals.h>

static const char *text_or_null(SEXP x) { return isNull(x) ? NULL : CHAR(asChar(x)); }

static SEXP text_or_na(const char *text) { return text != NULL ? mkChar(text) : NA_STRING; }

/* An R condition. `classes` ends with NULL; the index counts from 1, 0 for none. */
static SEXP condition(const char *const *classes, const char *message, double index) {
    int n = 0;
    while (classes[n] != NULL)
        n++;
    const char *names[] = {"message", "call", "index", ""};
    SEXP result = PROTECT(mkNamed(VECSXP, names));
    SET_VECTOR_ELT(result, 0, mkString(message));
    SET_VECTOR_ELT(result, 2, ScalarReal(index > 0 ? index : NA_REAL));
    SEXP class = PROTECT(allocVector(STRSXP, n));
    for (int i = 0; i < n; i++)
        SET_STRING_ELT(class, i, mkChar(classes[i]));
    setAttrib(result, R_ClassSymbol, class);
    UNPROTECT(2);
    return result;
}

/* This thread's last error, whose class tells its status: tryCatch(..., PB_ERR_TASK_FAILED = ). */
static SEXP last_error(pb_status status) {
    pb_error_info info = {sizeof info, 0, 0, 0, 0, 0, 0, 0};
    double index = 0;
    if (pb_last_error_info(&info) == PB_OK && info.task_index != SIZE_MAX)
        index = (double)info.task_index + 1;
    const char *classes[] = {pb_status_name(status), "pb_error", "error", "condition", NULL};
    return condition(classes, pb_last_error(), index);
}

/* R has no integer of 64 bits, so a scope is eight raw bytes. They are allocated before the scope opens: what
 * fails then leaves nothing open. */
static SEXP scope_or_error(SEXP bytes, pb_status status, pb_scope scope) {
    if (status != PB_OK)
        return last_error(status);
    memcpy(RAW(bytes), &scope, sizeof scope);
    return bytes;
}

static pb_scope scope_of(SEXP bytes) {
    pb_scope scope = 0; /* never a scope: the library says so */
    if (TYPEOF(bytes) == RAWSXP && XLENGTH(bytes) == sizeof scope)
        memcpy(&scope, RAW(bytes), sizeof scope);
    return scope;
}

static SEXP push_backend(SEXP backend, SEXP n_jobs, SEXP inner, SEXP params) {
    SEXP bytes = PROTECT(allocVector(RAWSXP, sizeof(pb_scope)));
    pb_scope scope = 0;
    pb_status status = pb_push_backend(text_or_null(backend), asInteger(n_jobs), asInteger(inner),
                                       text_or_null(params), &scope);
    SEXP result = scope_or_error(bytes, status, scope);
    UNPROTECT(1);
    return result;
}

static SEXP pop_backend(SEXP scope) {
    pb_status status = pb_pop_backend(scope_of(scope));
    return status == PB_OK ? R_NilValue : last_error(status);
}

static SEXP push_thread_limit(SEXP limit) {
    SEXP bytes = PROTECT(allocVector(RAWSXP, sizeof(pb_scope)));
    pb_scope scope = 0;
    pb_status status = pb_push_thread_limit(asInteger(limit), PB_API_ALL, &scope);
    SEXP result = scope_or_error(bytes, status, scope);
    UNPROTECT(1);
    return result;
}

static SEXP pop_thread_limit(SEXP scope) {
    pb_status status = pb_pop_thread_limit(scope_of(scope));
    return status == PB_OK ? R_NilValue : last_error(status);
}

static SEXP n_jobs(void) {
    int32_t n = pb_effective_n_jobs(0);
    return n > 0 ? ScalarInteger(n) : last_error(n);
}

/* A native task as R holds it. Another package would make its own with the same tag. */
static SEXP task(SEXP name) {
    pb_task_fn run = task_named(CHAR(asChar(name)));
    if (run == NULL)
        error("there is no task '%s'", CHAR(asChar(name)));
    return R_MakeExternalPtrFn((DL_FUNC)run, install("pb_task"), R_NilValue);
}

static void check_interrupt(void *unused) {
    (void)unused;
    R_CheckUserInterrupt();
}

/* Waits until the job is over, and asks R for an interrupt every 50 ms. R's longjmp ends in R_ToplevelExec,
 * which returns FALSE then: the job is cancelled, and waited for. */
static pb_status wait_for(pb_job *job, int *interrupted) {
    pb_status status;
    while ((status = pb_job_wait(job, 0.05)) == PB_PENDING) {
        if (!*interrupted && !R_ToplevelExec(check_interrupt, NULL)) {
            *interrupted = 1;
            pb_job_cancel(job);
        }
    }
    return status;
}

/* Runs a task for every number of x. Both vectors stay protected, and where they are, while the job runs. */
static SEXP map(SEXP task, SEXP x) {
    if (TYPEOF(task) != EXTPTRSXP || R_ExternalPtrTag(task) != install("pb_task"))
        error("task is not a native task");
    if (TYPEOF(x) != REALSXP)
        error("x is not a numeric vector");
    size_t n = (size_t)XLENGTH(x);
    SEXP y = PROTECT(allocVector(REALSXP, XLENGTH(x)));
    pb_task_fn run = (pb_task_fn)R_ExternalPtrAddrFn(task);
    const double *input = REAL(x); /* a compact sequence becomes an array here, on R's own thread */
    pb_job *job = NULL;
    pb_status status =
        pb_submit_map(run, NULL, n, input, sizeof(double), REAL(y), sizeof(double), NULL, &job);
    int interrupted = 0;
    if (status == PB_OK)
        status = wait_for(job, &interrupted);
    pb_job_free(job);
    SEXP result = y;
    if (interrupted) {
        const char *classes[] = {"interrupt", "condition", NULL};
        result = condition(classes, "the map was interrupted", 0);
    } else if (status != PB_OK) {
        result = last_error(status);
    }
    UNPROTECT(1);
    return result;
}

static SEXP backends(void) {
    size_t size = 0;
    pb_status status = pb_backend_names(NULL, 0, &size);
    if (status != PB_OK)
        return last_error(status);
    char *names = R_alloc(size, 1);
    status = pb_backend_names(names, size, &size);
    return status == PB_OK ? mkString(names) : last_error(status);
}

static SEXP text_column(SEXP frame, int column, R_xlen_t rows) {
    SEXP cells = allocVector(STRSXP, rows);
    SET_VECTOR_ELT(frame, column, cells);
    return cells;
}

/* The native thread pools, as a list of columns. */
static SEXP thread_pools(void) {
    R_xlen_t rows = (R_xlen_t)pb_thread_pool_count();
    const char *names[] = {"user_api", "internal_api", "version", "scope", "filepath", "num_threads", ""};
    SEXP frame = PROTECT(mkNamed(VECSXP, names)), texts[5];
    for (int column = 0; column < 5; column++)
        texts[column] = text_column(frame, column, rows);
    SEXP threads = allocVector(INTSXP, rows);
    SET_VECTOR_ELT(frame, 5, threads);
    for (R_xlen_t i = 0; i < rows; i++) {
        pb_thread_pool pool = {sizeof pool, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0};
        pb_status status = pb_thread_pool_get((size_t)i, &pool);
        if (status != PB_OK) {
            UNPROTECT(1);
            return last_error(status);
        }
        SET_STRING_ELT(texts[0], i, text_or_na(pool.user_api));
        SET_STRING_ELT(texts[1], i, text_or_na(pool.internal_api));
        SET_STRING_ELT(texts[2], i, text_or_na(pool.version));
        SET_STRING_ELT(texts[3], i, text_or_na(pool.scope));
        SET_STRING_ELT(texts[4], i, text_or_na(pool.filepath));
        INTEGER(threads)[i] = pool.num_threads;
    }
    UNPROTECT(1);
    return frame;
}

void R_init_parallel_backend_glue(DllInfo *dll) {
    static const R_CallMethodDef routines[] = {
        {"push_backend", (DL_FUNC)push_backend, 4},
        {"pop_backend", (DL_FUNC)pop_backend, 1},
        {"push_thread_limit", (DL_FUNC)push_thread_limit, 1},
        {"pop_thread_limit", (DL_FUNC)pop_thread_limit, 1},
        {"n_jobs", (DL_FUNC)n_jobs, 0},
        {"task", (DL_FUNC)task, 1},
        {"map", (DL_FUNC)map, 2},
        {"backends", (DL_FUNC)backends, 0},
        {"thread_pools", (DL_FUNC)thread_pools, 0},
        {NULL, NULL, 0},
    };
    R_registerRoutines(dll, NULL, routines, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
}
