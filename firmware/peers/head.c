/* One head of attention as CMSIS-NN offers it: int8 batch matmul, int8 softmax, int8 batch matmul,
 * a row of queries at a time, so that its scratch is two rows of scores and not n x n. */
#include "arm_nnfunctions.h"

static void product(const int8_t *row, const int8_t *matrix, int rows, int inner, int32_t offset,
                    int32_t multiplier, int32_t shift, int8_t *out) {
    const cmsis_nn_context none = {0, 0};
    const cmsis_nn_bmm_params params = {
        0, 0, {offset, 0, 0, {-128, 127}}};
    const cmsis_nn_per_tensor_quant_params quant = {multiplier, shift};
    const cmsis_nn_dims lhs = {1, 1, 1, inner}, rhs = {1, 1, rows, inner}, result = {1, 1, 1, rows};
    arm_batch_matmul_s8(&none, &params, &quant, &lhs, row, &rhs, matrix, &result, out);
}

/* q and k: n x d; vt: V transposed, d x n; scratch: 2 n bytes; out: n x d. */
void cmsis_head(const int8_t *q, const int8_t *k, const int8_t *vt, int n, int d, int8_t *scratch,
                int8_t *out) {
    int8_t *scores = scratch, *weights = scratch + n;
    for (int i = 0; i < n; i++) {
        /* 2^-7 from sums to scores whose unit is 1/16. */
        product(q + i * d, k, n, d, 0, 1 << 30, -6, scores);
        arm_softmax_s8(scores, 1, n, 1 << 30, 23, -248, weights);
        /* Weights have the unit 1/256 and the zero point -128. */
        product(weights, vt, d, n, 128, 1 << 30, -7, out + i * d);
    }
}

/* rows x inner weights, a multiplier and a shift a row. */
void cmsis_linear(const int8_t *x, const int8_t *w, const int32_t *bias, const int32_t *multiplier,
                  const int32_t *shift, int inner, int rows, int8_t *out) {
    const cmsis_nn_context none = {0, 0};
    const cmsis_nn_fc_params params = {0, 0, 0, {-128, 127}};
    const cmsis_nn_per_channel_quant_params quant = {(int32_t *)multiplier, (int32_t *)shift};
    const cmsis_nn_dims in = {1, 1, 1, inner}, filter = {inner, 1, 1, rows}, none_dims = {1, 1, 1, rows};
    arm_fully_connected_per_channel_s8(&none, &params, &quant, &in, x, &filter, w, &none_dims, bias, &none_dims,
                                       out);
}

void cmsis_softmax(const int8_t *x, int n, int8_t *out) {
    arm_softmax_s8(x, 1, n, 1 << 30, 23, -248, out);
}
