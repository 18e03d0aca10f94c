/* What the objects of the public API are made of; for the files of this directory only. */
#ifndef SM_API_INTERNAL_H
#define SM_API_INTERNAL_H

#include <supermachine.h>

#include "image/store.h"

struct sm_store {
    struct sm_imgstore *images;
};

#endif
