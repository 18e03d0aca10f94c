/* Files of the guest, over a connection to its agent, which has no other use afterwards. */
#ifndef SM_VM_AGENT_FILES_H
#define SM_VM_AGENT_FILES_H

#include "vm/agent/channel.h"

/* An absolute path that the agent takes. */
int sm_agent_check_path(const char *path, sm_error *err);

/* Each frame has the time that an answer has (SM_AGENT_TIMEOUT_MS). */
int sm_agent_put_file(struct sm_channel *channel, const struct sm_wire_write_file *request,
    const uint8_t *data, sm_error *err);
/* *data is malloc'ed. SM_ELIMIT: it has more than request->max bytes. */
int sm_agent_get_file(struct sm_channel *channel, const struct sm_wire_read_file *request,
    void **data, size_t *size, sm_error *err);

#endif
