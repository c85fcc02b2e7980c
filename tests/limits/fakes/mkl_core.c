/* Stands in for libmkl_core, which libmkl_rt loads when it starts. */
int fake_mkl_core(void) { return 0; }
