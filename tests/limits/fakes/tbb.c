/* Stands in for oneTBB: the smallest value of the live objects counts. */
#include <stddef.h>
#include <stdint.h>

struct global_control {
    size_t value;
    intptr_t reserved;
    int parameter;
};

static struct global_control *alive[16];

void _ZN3tbb6detail2r16createERNS0_2d114global_controlE(struct global_control *control) {
    for (int i = 0; i < 16; i++) {
        if (!alive[i]) {
            alive[i] = control;
            return;
        }
    }
}

void _ZN3tbb6detail2r17destroyERNS0_2d114global_controlE(struct global_control *control) {
    for (int i = 0; i < 16; i++) {
        if (alive[i] == control) {
            alive[i] = NULL;
        }
    }
}

size_t _ZN3tbb6detail2r127global_control_active_valueEi(int parameter) {
    size_t smallest = 8;
    for (int i = 0; i < 16; i++) {
        if (alive[i] && alive[i]->parameter == parameter && alive[i]->value < smallest) {
            smallest = alive[i]->value;
        }
    }
    return smallest;
}

const char *TBB_runtime_version(void) { return "2023.2"; }

/* For the test: how many objects live. */
int fake_tbb_alive(void) {
    int n = 0;
    for (int i = 0; i < 16; i++) {
        n += alive[i] != NULL;
    }
    return n;
}
