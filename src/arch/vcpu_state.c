/* Lists of register values. See vcpu_state.h. */
#include "arch/vcpu_state.h"

#include <stdlib.h>

#include "util/error.h"

/* Room for n elements of `size` in *v (now *room); doubles to keep appending cheap. */
static int grow(void **v, uint32_t *room, uint32_t n, size_t size, sm_error *err)
{
    if (n <= *room)
        return 0;
    uint32_t want = *room > UINT32_MAX / 2 ? UINT32_MAX : *room * 2;
    if (want < n)
        want = n;
    if (want < 16)
        want = 16;
    void *grown = reallocarray(*v, want, size);
    if (!grown)
        return sm_error_set(err, SM_ENOMEM, "no memory for a list of %u vCPU registers", n);
    *v = grown;
    *room = want;
    return 0;
}

int sm_reg_list_reserve(struct sm_reg_list *list, uint32_t n, sm_error *err)
{
    void *v = list->v;
    int rc = grow(&v, &list->room, n, sizeof(list->v[0]), err);
    list->v = v;
    return rc;
}

int sm_reg128_list_reserve(struct sm_reg128_list *list, uint32_t n, sm_error *err)
{
    void *v = list->v;
    int rc = grow(&v, &list->room, n, sizeof(list->v[0]), err);
    list->v = v;
    return rc;
}

int sm_reg_list_add(struct sm_reg_list *list, uint32_t id, uint64_t value, sm_error *err)
{
    int rc = sm_reg_list_reserve(list, list->n + 1, err);
    if (rc)
        return rc;
    list->v[list->n++] = (struct sm_reg){.id = id, .value = value};
    return 0;
}

int sm_reg128_list_add(
    struct sm_reg128_list *list, uint32_t id, uint64_t lo, uint64_t hi, sm_error *err)
{
    int rc = sm_reg128_list_reserve(list, list->n + 1, err);
    if (rc)
        return rc;
    list->v[list->n++] = (struct sm_reg128){.id = id, .lo = lo, .hi = hi};
    return 0;
}

bool sm_reg_list_find(const struct sm_reg_list *list, uint32_t id, uint64_t *value)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->v[i].id == id) {
            *value = list->v[i].value;
            return true;
        }
    }
    return false;
}

bool sm_vcpu_state_is_first(const struct sm_vcpu_state *state)
{
    return !state->simd.n && !state->sys.n && !state->icc.n && !state->redist.n;
}

void sm_vcpu_state_clear(struct sm_vcpu_state *state)
{
    free(state->gp.v);
    free(state->simd.v);
    free(state->sys.v);
    free(state->icc.v);
    free(state->redist.v);
    *state = (struct sm_vcpu_state){0};
}
