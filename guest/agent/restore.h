/* What a restore changes in a guest: see restore.c. */
#ifndef SM_AGENT_RESTORE_H
#define SM_AGENT_RESTORE_H

#include "conn.h"

void restore_clock(struct conn *c, const struct sm_wire_set_clock *m);
void restore_entropy(struct conn *c, const struct sm_wire_add_entropy *m);
void restore_identity(struct conn *c, const struct sm_wire_set_identity *m);
void restore_network(struct conn *c, const struct sm_wire_set_network *m);
/* All but the network. */
void restore_all(struct conn *c, const struct sm_wire_restore *m);

#endif
