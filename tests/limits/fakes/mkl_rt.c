/* Stands in for libmkl_rt. The count of a thread is 0 while it follows the process. */
#include <stdio.h>

static int process_count = 8;
static _Thread_local int local_count;
static int calls;

int MKL_Get_Max_Threads(void) { return calls++, local_count ? local_count : process_count; }
void MKL_Set_Num_Threads(int threads) { calls++, process_count = threads; }
int MKL_Set_Num_Threads_Local(int threads) {
    int before = local_count;
    calls++;
    local_count = threads;
    return before;
}
int MKL_Set_Threading_Layer(int layer) { return calls++, layer == -1 ? 3 : layer; }
void MKL_Get_Version_String(char *text, int size) {
    calls++;
    snprintf(text, size, "Intel(R) oneAPI Math Kernel Library Version 2026.2-Product Build 20260601");
}

/* For the test: how often MKL was called, and this thread's own count. */
int fake_mkl_calls(void) { return calls; }
int fake_mkl_local(void) { return local_count; }
