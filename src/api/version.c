/* The version of the library. */
#include <supermachine.h>

const char *sm_version(void)
{
    return SM_VERSION;
}
