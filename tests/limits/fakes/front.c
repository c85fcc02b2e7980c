/* Stands in for Debian's libblas.so.3: no OpenBLAS symbol of its own, but it needs an object that has them.
 */
extern int openblas_get_num_threads(void);

int front_of_openblas(void) { return openblas_get_num_threads(); }
