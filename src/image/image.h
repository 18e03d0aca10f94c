/* An image that is open: its files, which stay while it is, and what its configuration says. */
#ifndef SM_IMAGE_IMAGE_H
#define SM_IMAGE_IMAGE_H

#include "image/image_config.h"
#include "image/record.h"

struct sm_image {
    struct sm_imgstore *store; /* the opener's */
    struct sm_image_info info;
    struct sm_oci_config config;
};

#endif
