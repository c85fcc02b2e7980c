/* The three Fortran routines of BLAS and LAPACK that the demo calls. Matrices are stored by columns. The
 * lengths at the end belong to the character arguments: Fortran compilers expect them, and C implementations
 * ignore them. */
#ifndef DEMO_LAPACK_H
#define DEMO_LAPACK_H

#include <stddef.h>

/* C = alpha op(A) op(B) + beta C */
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
            const double *alpha, const double *a, const int *lda, const double *b, const int *ldb,
            const double *beta, double *c, const int *ldc, size_t transa_length, size_t transb_length);

/* One triangle of C = alpha A' A + beta C */
void dsyrk_(const char *uplo, const char *trans, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *beta, double *c, const int *ldc,
            size_t uplo_length, size_t trans_length);

/* Solves A X = B by the Cholesky factor of A. X replaces B. info > 0: A is not positive definite. */
void dposv_(const char *uplo, const int *n, const int *nrhs, double *a, const int *lda, double *b,
            const int *ldb, int *info, size_t uplo_length);

#endif
