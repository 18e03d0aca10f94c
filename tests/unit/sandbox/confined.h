/* A child that confines itself and then does something; what became of it. */
#ifndef CONFINED_H
#define CONFINED_H

#include <stdbool.h>
#include <sys/types.h>

#include "sandbox/sandbox.h"

struct confined {
    struct sm_sandbox_layers layers;
    int code, status; /* si_code and si_status of its end */
    int result;       /* what `act` returned, where it came to that */
    char told[512];   /* what the trap said */
};

/* What is tried behind the wall. Its result is written to the parent. */
typedef int act_fn(const void *arg);

/* Runs act(arg) in a child that has entered `spec` (its trap_fd and who are set here), with another
 * list on top where `tighten` is not NULL. Enter must not fail. */
struct confined confine(const struct sm_sandbox_spec *spec, const struct sm_sandbox_calls *tighten,
    act_fn *act, const void *arg);

/* The same as user nobody, if we are root. */
extern bool confine_as_nobody;

#endif
