/* SPDX-License-Identifier: MIT */
/* A guest's SCSI driver for the device tests: commands, task management, events. */
#ifndef SCSI_DRIVER_H
#define SCSI_DRIVER_H

#include <linux/virtio_scsi.h>

#include "frontend.h"
#include "scsi-bytes.h"

#define MIB	       (1u << 20)
#define BLOCKS	       (4 * MIB / 512) /* of the image */
#define NOT_SEEN       0xee
#define NO_ADDRESS     0xffff
#define CDB(...)       ((const uint8_t[16]){__VA_ARGS__})
#define BE16(x)	       (uint8_t)((x) >> 8), (uint8_t)(x)
#define BE32(x)	       BE16((uint32_t)(x) >> 16), BE16((x)&0xffff)
#define BE64(x)	       BE32((uint64_t)(x) >> 32), BE32((x)&0xffffffff)
#define SENSE(k, a, q) ((uint32_t)(k) << 16 | (a) << 8 | (q))

extern struct fe fe;
extern struct fe_queue *ctl, *ev, *rq; /* rq: the first request queue */
extern char image[160];

struct answer {
	uint8_t response, status;
	uint32_t sense, resid, used; /* sense: SENSE() of both formats; 0: none */
	uint32_t sense_len;
	uint8_t raw[96];
};

/* One request on its way. */
struct command {
	struct virtio_scsi_cmd_req *req;
	struct virtio_scsi_cmd_resp *resp;
	struct vring_driver_buf bufs[4];
	unsigned n;
};

/* A new image of 4 MiB in a directory of its own. */
void image_new(void);
void image_is(off_t at, const void *want, size_t len);
void image_write(off_t at, const void *data, size_t len);
const char *lun_option(const char *address, const char *more);
void pattern(uint8_t *buf, size_t len, unsigned seed);
void *guest(size_t len);

/* The back-end with these arguments, three queues up, unit attentions of 0:0 taken. */
void begin(const struct fe_mode *m, const char *const *args);
/* With image_new(), as unit 0:0. */
void begin_image(const struct fe_mode *m, const char *more);

void address(uint8_t lun[8], unsigned target, unsigned unit);
/* Stages it on q with a tag; it stays for some hundred more. */
struct command *issue(struct fe_queue *q, unsigned target, unsigned unit, const uint8_t *cdb, const void *out,
	uint32_t out_len, void *in, uint32_t in_len, uint64_t tag);
struct answer answer_of(const struct command *c, uint32_t used);
struct answer ask_unit(unsigned target, unsigned unit, const uint8_t *cdb, const void *out, uint32_t out_len,
	void *in, uint32_t in_len);
struct answer ask(const uint8_t *cdb, const void *out, uint32_t out_len, void *in, uint32_t in_len);

void is_good(struct answer a);
void is_sense(struct answer a, uint32_t sense);
void is_response(struct answer a, uint8_t response);
/* Takes the unit attentions of a unit until there is none left. */
void calm(unsigned target, unsigned unit);

/* The response. */
uint8_t tmf(uint32_t subtype, unsigned target, unsigned unit, uint64_t tag);

#endif
