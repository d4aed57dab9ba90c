/* network.c - networks by name: those of the library, and a program's own. */
#include "models/builder.h"

#include <string.h>

enum { OWN = 5, OWN_MAX = 32 };
/* the program's own come after the library's; the list stays NULL-terminated */
static const ts_network *networks[OWN + OWN_MAX + 1] = {&ts_network_resnet18, &ts_network_resnet20,
                                                        &ts_network_vgg16, &ts_network_mlp,
                                                        &ts_network_tiny};

const ts_network *const *ts_networks(void)
{
    return networks;
}

const ts_network *ts_network_find(const char *name)
{
    for (int i = 0; networks[i]; i++)
        if (!strcmp(networks[i]->name, name)) return networks[i];
    return NULL;
}

void ts_networks_forget(void)
{
    memset(networks + OWN, 0, sizeof *networks * OWN_MAX);
}

ts_status ts_network_add(const ts_network *network)
{
    TS_NEED(!ts_network_find(network->name), TS_EUSAGE, "there is a network \"%s\" already",
            network->name);
    int n = 0;
    while (networks[n]) n++;
    TS_NEED(n < OWN + OWN_MAX, TS_EUSAGE, "more than %d networks of a program's own", OWN_MAX);
    networks[n] = network;
    return TS_OK;
}
