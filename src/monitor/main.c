/* supermachine-vm: the processes of one VM, one role each. It is started by the library and by
 * nobody else; what it has to do it is told over the descriptors that it begins with. */
#include <stdio.h>
#include <string.h>

#include "monitor/layers.h"
#include "monitor/machine.h"
#include "monitor/network.h"

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*play)(void);
    } roles[] = {
        {"machine", sm_machine_role},
        {"network", sm_network_role},
        {"layers", sm_layers_role},
    };
    for (size_t i = 0; argc == 2 && i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(argv[1], roles[i].name) == 0)
            return roles[i].play();
    }
    fprintf(stderr, "supermachine-vm is started by supermachine, which see\n");
    return 2;
}
