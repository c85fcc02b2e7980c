/* Stands in for BLIS: 0.9 with one count for the process, or, with SINCE_1_0, one for each thread; with AMD,
 * as AOCL-BLIS, which follows OpenMP until its own setter is called. INTEGER is its integer's type. */
#include <stdint.h>

#ifndef INTEGER
#define INTEGER int64_t
#endif
typedef INTEGER gint_t;

#ifdef SINCE_1_0
#define STORAGE static _Thread_local
gint_t bli_info_get_enable_tls(void) { return 1; }
gint_t bli_info_get_enable_openmp_as_default(void) { return 0; }
gint_t bli_info_get_enable_pthreads_as_default(void) { return 1; }
#ifdef AMD
#include <omp.h>
const char *bli_info_get_version_str(void) { return "AOCL-BLIS 5.2.2 Build 20260101"; }
#else
const char *bli_info_get_version_str(void) { return "1.1"; }
#endif
#else
#define STORAGE static
const char *bli_info_get_version_str(void) { return "0.9.0"; }
#endif

/* What its environment says: 8 threads, which it may split by itself. */
STORAGE gint_t threads = 8, jc = -1, pc = -1, ic = -1, jr = -1, ir = -1;

gint_t bli_info_get_int_type_size(void) { return 8 * sizeof(gint_t); }
gint_t bli_info_get_enable_openmp(void) { return 0; }
gint_t bli_info_get_enable_pthreads(void) { return 1; }
int bli_arch_query_id(void) { return 4; }
const char *bli_arch_string(int id) { return id == 4 ? "haswell" : "?"; }

static int decides;
int fake_blis_decides(void) { return decides; }

#ifdef AMD
gint_t bli_thread_get_num_threads(void) { return decides ? threads : omp_get_max_threads(); }
#else
gint_t bli_thread_get_num_threads(void) { return threads; }
#endif
void bli_thread_set_num_threads(gint_t n) {
    threads = n;
    decides = 1;
}
gint_t bli_thread_get_jc_nt(void) { return jc; }
gint_t bli_thread_get_pc_nt(void) { return pc; }
gint_t bli_thread_get_ic_nt(void) { return ic; }
gint_t bli_thread_get_jr_nt(void) { return jr; }
gint_t bli_thread_get_ir_nt(void) { return ir; }
void bli_thread_set_ways(gint_t a, gint_t b, gint_t c, gint_t d, gint_t e) {
    jc = a, pc = b, ic = c, jr = d, ir = e;
}
