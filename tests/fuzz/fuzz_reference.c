/* References: whatever is accepted formats to something that is accepted and means the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_free char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    auto_reference ref = NULL;
    struct sm_platform platform;
    sm_error err;
    (void)sm_platform_parse(text, &platform, &err);
    if (sm_reference_parse(text, &ref, &err) != 0)
        return 0;
    auto_free char *full = sm_reference_format(ref);
    auto_reference again = NULL;
    if (!full || sm_reference_parse(full, &again, &err) != 0)
        abort();
    auto_free char *twice = sm_reference_format(again);
    if (!twice || strcmp(full, twice) != 0)
        abort();
    return 0;
}
