/* SPDX-License-Identifier: MIT */
/*
 * The 3D commands (virtio 1.3, 5.7.6.8): capabilities, contexts, resources, transfers. What can be checked is checked here; the
 * renderer does the rest (gpu-3d.c).
 */
#include <string.h>

#include "gpu-3d-core.h"

enum { MAX_SUBMIT = 64 << 20 };

/* Capabilities */

uint32_t gpu_cmd_capset_info(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct gpu_3d *t = g->three;
	uint32_t index = le32toh(c->capset_info.capset_index);
	struct virtio_gpu_resp_capset_info info = {0};

	if (index >= t->ncapsets)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	info.capset_id = htole32(VIRTIO_GPU_CAPSET_VIRGL + index);
	info.capset_max_version = htole32(t->capset[index].version);
	info.capset_max_size = htole32(t->capset[index].size);
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_CAPSET_INFO, &info, sizeof(info));
	return GPU_HELD;
}

uint32_t gpu_cmd_capset(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct gpu_3d *t = g->three;
	uint32_t index = le32toh(c->capset.capset_id) - VIRTIO_GPU_CAPSET_VIRGL;
	CLEANUP_FREE struct virtio_gpu_resp_capset *all = NULL;
	size_t size;

	if (index >= t->ncapsets || le32toh(c->capset.capset_version) > t->capset[index].version)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	size = sizeof(*all) + t->capset[index].size;
	all = calloc(1, size);
	if (!all)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	memcpy(all->capset_data, t->capset_data[index], t->capset[index].size);
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_CAPSET, all, size);
	return GPU_HELD;
}

unsigned gpu_3d_num_capsets(const struct gpu_3d *t)
{
	return t->ncapsets;
}

/* Contexts */

static unsigned context_find(const struct gpu_3d *t, uint32_t id)
{
	unsigned i = 0;

	while (i < t->ncontexts && t->context[i] != id)
		i++;
	return i;
}

static bool context_known(const struct gpu_3d *t, uint32_t id)
{
	return id && context_find(t, id) < t->ncontexts;
}

uint32_t gpu_cmd_ctx_create(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = g->three;
	uint32_t id = le32toh(r->hdr.ctx_id);
	struct virtio_gpu_ctx_create create = c->ctx_create;
	uint32_t status;

	if (!backend_has(g->b, VIRTIO_GPU_F_CONTEXT_INIT))
		create.context_init = 0;
	if (!id || context_known(t, id))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (le32toh(create.context_init) > t->ncapsets) /* they are numbered from 1 */
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (t->ncontexts == GPU_3D_CONTEXTS)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	if (!gpu_3d_present(t))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	status = gpu_3d_hand_on(t, r, WIRE_CTX_CREATE, 0, &create, sizeof(create));
	if (status == GPU_HELD)
		t->context[t->ncontexts++] = id;
	return status;
}

uint32_t gpu_cmd_ctx_destroy(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = g->three;
	uint32_t id = le32toh(r->hdr.ctx_id);

	(void)c;
	if (!context_known(t, id))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	t->context[context_find(t, id)] = t->context[t->ncontexts - 1];
	t->ncontexts--;
	return gpu_3d_hand_on(t, r, WIRE_CTX_DESTROY, 0, NULL, 0);
}

/* 2D resources and blobs are nothing to the renderer; Linux attaches every one that a program opens. */
static uint32_t context_resource(struct gpu *g, struct gpu_request *r, uint32_t resource, enum wire_type type)
{
	const struct gpu_resource *res = gpu_resource_find(g, resource);

	if (!context_known(g->three, le32toh(r->hdr.ctx_id)))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind != GPU_RESOURCE_3D)
		return VIRTIO_GPU_RESP_OK_NODATA;
	return res->in_renderer ? gpu_3d_hand_on(g->three, r, type, resource, NULL, 0)
				: VIRTIO_GPU_RESP_ERR_UNSPEC;
}

uint32_t gpu_cmd_ctx_attach(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return context_resource(g, r, le32toh(c->ctx_resource.resource_id), WIRE_CTX_ATTACH);
}

uint32_t gpu_cmd_ctx_detach(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return context_resource(g, r, le32toh(c->ctx_resource.resource_id), WIRE_CTX_DETACH);
}

/* Resources */

/* An upper bound of the bytes of a pixel: the numbers are Gallium's, in which formats of 32 bits a channel come in groups. */
static uint64_t pixel_bytes(uint32_t format)
{
	if (gpu_format_known(format) || format < 24 || (format >= 64 && format < 87) ||
		(format >= 95 && format < 150))
		return 4;
	return 16;
}

static uint64_t estimate(const struct virtio_gpu_resource_create_3d *c)
{
	uint64_t size = (uint64_t)le32toh(c->width) * MAX(le32toh(c->height), 1u);

	if (!le32toh(c->target)) /* a buffer: bytes */
		return le32toh(c->width);
	if (le32toh(c->width) > 1u << 20 || le32toh(c->height) > 1u << 20 || le32toh(c->depth) > 1u << 16 ||
		le32toh(c->array_size) > 1u << 16 || le32toh(c->nr_samples) > 64)
		return UINT64_MAX / 2;
	if (__builtin_mul_overflow(size, (uint64_t)MAX(le32toh(c->depth), 1u), &size) ||
		__builtin_mul_overflow(size, (uint64_t)MAX(le32toh(c->array_size), 1u), &size) ||
		__builtin_mul_overflow(
			size, MAX(le32toh(c->nr_samples), 1u) * pixel_bytes(le32toh(c->format)), &size))
		return UINT64_MAX / 2;
	return le32toh(c->last_level) ? size / 3 * 4 : size;
}

/* If the renderer does not want it, it leaves the table again. */
uint32_t gpu_cmd_create_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct virtio_gpu_resource_create_3d *d = &c->create_3d;
	uint32_t id = le32toh(d->resource_id), status;
	struct gpu_resource *res = gpu_resource_new(g, id, GPU_RESOURCE_3D, estimate(d), &status);

	if (!res)
		return status;
	res->format = le32toh(d->format);
	res->width = le32toh(d->width);
	res->height = le32toh(d->height);
	status = gpu_3d_present(g->three) ? gpu_3d_hand_on(g->three, r, WIRE_CREATE, id, d, sizeof(*d))
					  : VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (status != GPU_HELD) {
		gpu_resource_destroy(res);
		return status;
	}
	res->in_renderer = true;
	r->res = gpu_resource_ref(res);
	return GPU_HELD;
}

static uint32_t transfer_3d(struct gpu *g, struct gpu_request *r, const struct virtio_gpu_transfer_host_3d *c,
	enum wire_type type)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->resource_id));
	uint32_t ctx = le32toh(r->hdr.ctx_id), status;

	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (ctx && !context_known(g->three, ctx))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (res->kind != GPU_RESOURCE_3D)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!res->in_renderer || !gpu_3d_put_memory(g->three))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	status = gpu_3d_hand_on(g->three, r, type, res->id, c, sizeof(*c));
	if (status == GPU_HELD)
		r->res = gpu_resource_ref(res);
	return status;
}

uint32_t gpu_cmd_transfer_to_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return transfer_3d(g, r, &c->transfer_3d, WIRE_TRANSFER_TO);
}

uint32_t gpu_cmd_transfer_from_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return transfer_3d(g, r, &c->transfer_3d, WIRE_TRANSFER_FROM);
}

/* The renderer reads its commands more than once: from a copy that the guest cannot change. */
uint32_t gpu_cmd_submit(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = g->three;
	uint32_t size = le32toh(c->submit.size);
	void *at;

	if (!context_known(t, le32toh(r->hdr.ctx_id)))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (size > r->e->rd.left || size % sizeof(uint32_t))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (size > g->max_hostmem || size > MAX_SUBMIT)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	if (!gpu_3d_put_memory(t))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	at = gpu_3d_put(t, r, (struct wire){.type = WIRE_SUBMIT, .arg = size}, size);
	if (!at)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	cursor_get(&r->e->rd, at, size);
	return GPU_HELD;
}
