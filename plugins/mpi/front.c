/* The front of the backend "mpi": libpb_backend_mpi.so. It finds out which MPI this process belongs to, loads
 * the engine for that one (libpb_mpi_FAMILY.so, beside this file) and passes everything on to it.
 *
 * Two MPIs cannot live in one process, and calling the wrong one fails in strange ways or starts a job of one
 * rank. So the family is that of an MPI which is loaded already, else the one whose launcher started the
 * process; where neither tells, it is not guessed unless only one engine is installed. */
#define _GNU_SOURCE
#include "engine.h"
#include "parallel_backend_mpi.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((visibility("default"))) pb_status pb_plugin_init(void);
/* For pb-mpi-worker alone. */
__attribute__((visibility("default"))) pb_status pb_mpi_serve_with(void (*connected)(void));

enum { FAMILIES = 2, TEXT = 1024 };
static const char *const families[FAMILIES] = {"openmpi", "mpich"};

static const double START_TIMEOUT = 30;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct pb_mpi_engine *engine; /* written once, under the lock */

static pb_status fail(pb_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
static pb_status fail(pb_status status, const char *format, ...) {
    char text[2 * TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pb_backend_fail(status, text);
}

/* ---- which MPI ---- */

static int is_loaded(const char *soname) {
    void *handle = dlopen(soname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle != NULL)
        dlclose(handle);
    return handle != NULL;
}

/* The family of an MPI that is in this process; NULL if there is none. */
static const char *family_in_process(void) {
    typedef int version_fn(char *text, int *length);
    version_fn *version = NULL;
    *(void **)&version = dlsym(RTLD_DEFAULT, "MPI_Get_library_version");
    if (version != NULL) { /* it may be called before MPI is initialised */
        static char text[8192 + 1];
        int length = 0;
        return version(text, &length) == 0 && strstr(text, "Open MPI") != NULL ? "openmpi" : "mpich";
    }
    /* Loaded by a plugin or an interpreter, whose symbols we do not see. */
    if (is_loaded("libmpi.so.40"))
        return "openmpi";
    return is_loaded("libmpich.so.12") || is_loaded("libmpi.so.12") ? "mpich" : NULL;
}

/* The family whose launcher has started this process, as its environment tells; NULL if none has. */
static const char *family_of_launcher(void) {
    if (getenv("OMPI_COMM_WORLD_SIZE") != NULL)
        return "openmpi";
    if (getenv("PMI_RANK") != NULL || getenv("PMI_SIZE") != NULL)
        return "mpich";
    return getenv("PMIX_RANK") != NULL ? "openmpi" : NULL;
}

static const char *chosen_by_user(void) {
    const char *chosen = getenv("PB_MPI_PLUGIN");
    return chosen != NULL && *chosen != '\0' ? chosen : NULL;
}

static int is_mpi_job(void) {
    return chosen_by_user() != NULL || family_in_process() != NULL || family_of_launcher() != NULL;
}

static pb_status no_launcher(void) {
    return fail(PB_ERR_BACKEND_UNAVAILABLE,
                "backend 'mpi': this process is no rank of an MPI job: it was not started by mpirun or srun "
                "(OMPI_COMM_WORLD_SIZE, PMI_RANK and PMIX_RANK are not set), and no MPI library is loaded in "
                "it. Start it as "
                "'mpirun -n 1 PROGRAM : -n 4 pb-mpi-worker'");
}

/* ---- the engine ---- */

/* Fills in the path of an engine; 0 if there is no such file. */
static int engine_path(const char *name, char path[PATH_MAX]) {
    if (strchr(name, '/') != NULL)
        return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && access(path, R_OK) == 0;
    Dl_info self;
    if (dladdr((const void *)&engine, &self) == 0 || self.dli_fname == NULL)
        return 0;
    const char *slash = strrchr(self.dli_fname, '/');
    const int directory = slash != NULL ? (int)(slash - self.dli_fname) + 1 : 0;
    return snprintf(path, PATH_MAX, "%.*slibpb_mpi_%s.so", directory, self.dli_fname, name) < PATH_MAX &&
           access(path, R_OK) == 0;
}

static const char *only_family(void) {
    char path[PATH_MAX];
    const char *only = NULL;
    for (int i = 0; i < FAMILIES; ++i)
        if (engine_path(families[i], path)) {
            if (only != NULL)
                return NULL;
            only = families[i];
        }
    return only;
}

static pb_status load(const char *name, const char *why) {
    char path[PATH_MAX] = "";
    if (!engine_path(name, path))
        return fail(PB_ERR_BACKEND_UNAVAILABLE,
                    "backend 'mpi': there is no engine '%s' (%s); looked for '%s'. Engines are built with "
                    "parallel_backend "
                    "where CMake finds that MPI's compiler (-DPB_MPI_COMPILERS=...)",
                    name, why, path);
    /* Open MPI's own plugins look for its symbols among the global ones, so that libmpi has to be there. */
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        return fail(PB_ERR_BACKEND_UNAVAILABLE, "backend 'mpi': cannot load the engine '%s' (%s): %s", name,
                    why, dlerror());
    pb_mpi_engine_fn *get = NULL;
    *(void **)&get = dlsym(library, PB_MPI_ENGINE_SYMBOL);
    const struct pb_mpi_engine *found = get != NULL ? get() : NULL;
    if (found == NULL || found->version != PB_MPI_ENGINE_VERSION)
        return fail(PB_ERR_ABI, "backend 'mpi': '%s' is no engine of this version: install both anew", path);
    __atomic_store_n(&engine, found, __ATOMIC_RELEASE);
    return PB_OK;
}

/* Loads the engine, once. `plugin` is the parameter of that name, or NULL. */
static pb_status choose(const char *plugin) {
    pthread_mutex_lock(&lock);
    pb_status status = PB_OK;
    const char *name;
    if (engine != NULL)
        ;
    else if (plugin != NULL)
        status = load(plugin, "parameter plugin");
    else if ((name = chosen_by_user()) != NULL)
        status = load(name, "variable PB_MPI_PLUGIN");
    else if ((name = family_in_process()) != NULL)
        status = load(name, "the MPI that is loaded in this process");
    else if (family_of_launcher() == NULL)
        status = no_launcher();
    else if ((name = only_family()) != NULL)
        status = load(name, "the only one that is installed");
    else
        status = load(family_of_launcher(), "the launcher that started this process");
    pthread_mutex_unlock(&lock);
    return status;
}

static const struct pb_mpi_engine *loaded(void) { return __atomic_load_n(&engine, __ATOMIC_ACQUIRE); }

/* ---- parameters ---- */

struct params {
    char plugin[PATH_MAX];
    double start_timeout;
};

static pb_status set_param(struct params *params, const char *key, const char *value) {
    if (strcmp(key, "plugin") == 0 && *value != '\0') {
        const int length = snprintf(params->plugin, sizeof params->plugin, "%s", value);
        return length < (int)sizeof params->plugin
                   ? PB_OK
                   : fail(PB_ERR_INVALID_ARGUMENT,
                          "parameter 'plugin' of backend 'mpi' is longer than a path");
    }
    if (strcmp(key, "start_timeout") == 0) {
        char *end;
        params->start_timeout = strtod(value, &end);
        if (end != value && *end == '\0' && params->start_timeout > 0 && params->start_timeout < 1e9)
            return PB_OK;
        return fail(PB_ERR_INVALID_ARGUMENT,
                    "parameter 'start_timeout' of backend 'mpi' is '%s': it must be seconds above 0", value);
    }
    return fail(PB_ERR_INVALID_ARGUMENT,
                "backend 'mpi' has no parameter '%s'; it knows: plugin, start_timeout", key);
}

static char *trim(char *text) {
    text += strspn(text, " \t");
    for (size_t length = strlen(text); length > 0 && strchr(" \t", text[length - 1]) != NULL;)
        text[--length] = '\0';
    return text;
}

/* "key=value;key=value" */
static pb_status parse(const char *text, struct params *params) {
    *params = (struct params){.start_timeout = START_TIMEOUT};
    char *copy = strdup(text != NULL ? text : "");
    if (copy == NULL)
        return fail(PB_ERR_OUT_OF_MEMORY, "backend 'mpi': no memory for its parameters");
    char *rest = NULL;
    pb_status status = PB_OK;
    for (char *pair = strtok_r(copy, ";", &rest); pair != NULL && status == PB_OK;
         pair = strtok_r(NULL, ";", &rest)) {
        pair = trim(pair);
        char *equals = strchr(pair, '=');
        if (*pair == '\0')
            continue;
        if (equals == NULL) {
            status =
                fail(PB_ERR_INVALID_ARGUMENT,
                     "params of backend 'mpi': '%s' is not key=value (pairs are separated by ';')", pair);
            break;
        }
        *equals = '\0';
        status = set_param(params, trim(pair), trim(equals + 1));
    }
    free(copy);
    return status;
}

/* ---- the table ---- */

static pb_status open_session(void *state, int32_t n_jobs, int32_t inner_max_num_threads, const char *text,
                              void **session) {
    (void)state, (void)n_jobs, (void)inner_max_num_threads;
    struct params params;
    pb_status status = parse(text, &params);
    if (status == PB_OK)
        status = choose(*params.plugin != '\0' ? params.plugin : NULL);
    *session = NULL;
    return status == PB_OK ? loaded()->open(params.start_timeout) : status;
}

static void close_session(void *state, void *session) {
    (void)state, (void)session;
    loaded()->close();
}

static int32_t max_n_jobs(void *state, void *session) {
    (void)state, (void)session;
    return loaded()->workers();
}

static int32_t effective_n_jobs(void *state, void *session, int32_t n_jobs) {
    const int32_t most = max_n_jobs(state, session);
    return n_jobs < most ? n_jobs : most;
}

static pb_status run(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    return loaded()->run(job);
}

static void shut_down(void *state) {
    (void)state;
    if (loaded() != NULL)
        loaded()->shutdown();
}

pb_status pb_plugin_init(void) {
    static const pb_backend_vtable table = {
        .struct_size = sizeof table,
        .abi_version = PB_BACKEND_ABI_VERSION,
        .open = open_session,
        .close = close_session,
        .effective_n_jobs = effective_n_jobs,
        .run = run,
        .max_n_jobs = max_n_jobs,
        .shutdown = shut_down,
    };
    return is_mpi_job() ? pb_register_backend("mpi", &table, NULL, 0) : no_launcher();
}

pb_status pb_mpi_serve_with(void (*connected)(void)) {
    pb_status status = choose(NULL);
    if (status != PB_OK)
        return status;
    /* Rank 0 has to hear of pb_shutdown, whether or not it uses the backend. */
    status = pb_plugin_init();
    return status == PB_OK || status == PB_ERR_EXISTS ? loaded()->serve(START_TIMEOUT, connected) : status;
}

pb_status pb_mpi_serve(void) { return pb_mpi_serve_with(NULL); }
