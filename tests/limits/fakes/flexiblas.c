/* Stands in for FlexiBLAS, which exports the other libraries' setters as aliases of its own. */
static int forwarded;

int flexiblas_avail(void) { return 1; }
int flexiblas_get_num_threads(void) { return 6; }
void flexiblas_set_num_threads(int threads) { forwarded = threads; }
void flexiblas_get_version(int *major, int *minor, int *patch) { *major = 3, *minor = 4, *patch = 82; }

int openblas_get_num_threads(void) { return 6; }
void openblas_set_num_threads(int threads) { forwarded = threads; }
int MKL_Get_Max_Threads(void) { return 6; }
int MKL_Set_Num_Threads_Local(int threads) { return forwarded = threads; }
void bli_thread_set_num_threads(int threads) { forwarded = threads; }

/* How often somebody has set a count through this front. */
int flexiblas_forwarded(void) { return forwarded; }
