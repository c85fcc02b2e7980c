/* Stands in for BLIS: 0.9 with one count for the process, or, with SINCE_1_0, one for each thread. */
#include <stdint.h>

#ifdef SINCE_1_0
#define STORAGE static _Thread_local
int64_t bli_info_get_enable_tls(void) { return 1; }
int64_t bli_info_get_enable_openmp_as_default(void) { return 0; }
int64_t bli_info_get_enable_pthreads_as_default(void) { return 1; }
const char *bli_info_get_version_str(void) { return "1.1"; }
#else
#define STORAGE static
const char *bli_info_get_version_str(void) { return "0.9.0"; }
#endif

/* What its environment says: 8 threads, which it may split by itself. */
STORAGE int64_t threads = 8, jc = -1, pc = -1, ic = -1, jr = -1, ir = -1;

int64_t bli_info_get_int_type_size(void) { return 64; }
int64_t bli_info_get_enable_openmp(void) { return 0; }
int64_t bli_info_get_enable_pthreads(void) { return 1; }
int bli_arch_query_id(void) { return 4; }
const char *bli_arch_string(int id) { return id == 4 ? "haswell" : "?"; }

int64_t bli_thread_get_num_threads(void) { return threads; }
void bli_thread_set_num_threads(int64_t n) { threads = n; }
int64_t bli_thread_get_jc_nt(void) { return jc; }
int64_t bli_thread_get_pc_nt(void) { return pc; }
int64_t bli_thread_get_ic_nt(void) { return ic; }
int64_t bli_thread_get_jr_nt(void) { return jr; }
int64_t bli_thread_get_ir_nt(void) { return ir; }
void bli_thread_set_ways(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e) {
    jc = a, pc = b, ic = c, jr = d, ir = e;
}
