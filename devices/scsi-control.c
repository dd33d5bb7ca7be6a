/* SPDX-License-Identifier: MIT */
/* Commands of the control socket: units come, go, grow, change their medium. */
#include "scsi.h"

#include <errno.h>
#include <stdio.h>

static void put_address(struct json *out, const struct scsi_lun *l)
{
	char text[16];

	snprintf(text, sizeof(text), "%u:%u", l->target, l->number);
	json_key(out, "lun");
	json_string(out, text);
}

static void put_member(struct json *out, const char *key, const char *value)
{
	json_key(out, key);
	json_string(out, value);
}

static void put_number(struct json *out, const char *key, uint64_t value)
{
	json_key(out, key);
	json_u64(out, value);
}

static void put_bool(struct json *out, const char *key, bool value)
{
	json_key(out, key);
	json_bool(out, value);
}

static void put_passed(struct json *out, const struct scsi_lun *l)
{
	json_object_begin(out);
	put_address(out, l);
	put_member(out, "type", "pass-through");
	put_member(out, "device", l->source);
	put_number(out, "device-type", scsi_sg_type(l->sg));
	put_number(out, "transfer-limit", scsi_sg_limit(l->sg));
	json_object_end(out);
}

static void put_unit(struct scsi_lun *l, void *arg)
{
	struct json *out = arg;
	uint32_t state = __atomic_load_n(&l->state, __ATOMIC_RELAXED);

	if (l->sg != NULL) {
		put_passed(out, l);
		return;
	}
	json_object_begin(out);
	put_address(out, l);
	put_member(out, "type", l->type == SCSI_CDROM ? "cdrom" : "disk");
	put_member(out, "disk", disk_name(l->disk));
	put_member(out, "serial", l->serial);
	put_number(out, "size", disk_size(l->disk));
	put_number(out, "block-size", l->block);
	put_bool(out, "read-only", l->read_only);
	put_bool(out, "removable", l->removable);
	put_bool(out, "write-cache", scsi_lun_mode(l) & MODE_WCE);
	put_bool(out, "medium", !(state & STATE_NO_MEDIUM));
	json_object_end(out);
}

void scsi_tell(struct scsi_lun *l, const char *what)
{
	struct json *data = NULL;

	if (backend_event_wanted(l->scsi->b))
		data = json_new(false);
	if (data == NULL)
		return;
	json_object_begin(data);
	put_address(data, l);
	put_number(data, "size", disk_size(l->disk));
	json_object_end(data);
	backend_event(l->scsi->b, what, data);
}

/* The unit that the argument "lun" names. */
static int unit_of(struct scsi *s, struct command *c, struct scsi_lun **out)
{
	const char *text = command_string(c, "lun");
	unsigned target, lun;

	if (!scsi_lun_number(text, &target, &lun))
		return command_error(c, EINVAL, "lun=%s: no TARGET:LUN", text);
	*out = scsi_lun_find(s, target, lun);
	return *out != NULL ? 0 : command_error(c, ENOENT, "lun=%s: there is none", text);
}

static int list_units(struct backend *b, struct command *c)
{
	json_object_begin(c->out);
	json_key(c->out, "luns");
	json_array_begin(c->out);
	scsi_lun_each(scsi_of(b), -1, put_unit, c->out);
	json_array_end(c->out);
	json_object_end(c->out);
	return 0;
}

static void other_units(struct scsi_lun *l, void *except)
{
	if (l != except)
		scsi_lun_attention(l, ATTENTION_LUNS);
}

static int add_unit(struct backend *b, struct command *c)
{
	struct scsi *s = scsi_of(b);
	const char *spec = command_string(c, "lun");
	char why[COMMAND_DESC_LEN] = "";
	unsigned target = 0, lun = 0;
	int r = scsi_lun_add(s, spec, why, sizeof(why));

	if (r < 0)
		return command_error(c, -r, "lun=%s: %s", spec, why);
	sscanf(spec, "%u:%u", &target, &lun);
	scsi_lun_each(s, (int)target, other_units, scsi_lun_find(s, target, lun));
	scsi_event_send(s, VIRTIO_SCSI_T_TRANSPORT_RESET, target, lun, VIRTIO_SCSI_EVT_RESET_RESCAN);
	return 0;
}

static int remove_unit(struct backend *b, struct command *c)
{
	struct scsi *s = scsi_of(b);
	struct scsi_lun *l;
	int r = unit_of(s, c, &l);
	unsigned target, lun;

	if (r < 0)
		return r;
	target = l->target;
	lun = l->number;
	scsi_lun_remove(s, target, lun);
	scsi_lun_each(s, (int)target, other_units, NULL);
	scsi_event_send(s, VIRTIO_SCSI_T_TRANSPORT_RESET, target, lun, VIRTIO_SCSI_EVT_RESET_REMOVED);
	return 0;
}

static int resize_unit(struct backend *b, struct command *c)
{
	struct scsi_lun *l;
	uint64_t size = 0;
	int r = unit_of(scsi_of(b), c, &l);

	if (r < 0)
		return r;
	if (l->sg != NULL)
		return command_error(c, EINVAL, "%s: a real device has its size itself", l->source);
	if (command_size(c, "size", &size) && size == 0)
		return command_error(c, EINVAL, "size=0: not a size");
	r = disk_resize(l->disk, size);
	if (r < 0)
		return command_error(c, -r, "%s: %s", disk_name(l->disk), strerror(-r));
	json_object_begin(c->out);
	put_number(c->out, "size", disk_size(l->disk));
	json_object_end(c->out);
	return 0;
}

/* The medium of a removable unit goes, or comes back. */
static int change_medium(struct backend *b, struct command *c, bool in)
{
	struct scsi_lun *l;
	bool force = false;
	int r = unit_of(scsi_of(b), c, &l);
	uint32_t state;

	if (r < 0)
		return r;
	command_bool(c, "force", &force);
	state = __atomic_load_n(&l->state, __ATOMIC_SEQ_CST);
	if (!l->removable)
		return command_error(c, EINVAL, "this unit's medium is not removable");
	if (!in && (state & STATE_PREVENTED) && !force)
		return command_error(c, EBUSY, "the guest has locked the medium");
	if (in == !(state & STATE_NO_MEDIUM))
		return 0;
	if (in) {
		scsi_lun_clear(l, STATE_NO_MEDIUM | STATE_STOPPED);
		scsi_lun_attention(l, ATTENTION_MEDIUM);
	} else {
		scsi_lun_set(l, STATE_NO_MEDIUM);
	}
	if (__atomic_load_n(&l->watched_media, __ATOMIC_RELAXED))
		scsi_event_send(l->scsi, VIRTIO_SCSI_T_ASYNC_NOTIFY, l->target, l->number, SCSI_AN_MEDIA);
	return 0;
}

static int eject(struct backend *b, struct command *c)
{
	return change_medium(b, c, false);
}

static int insert(struct backend *b, struct command *c)
{
	return change_medium(b, c, true);
}

#define LUN_ARG                                                                               \
	{                                                                                     \
		.name = "lun", .kind = COMMAND_STRING, .required = true, .help = "TARGET:LUN" \
	}

static const struct command_arg add_args[] = {
	{.name = "lun", .kind = COMMAND_STRING, .required = true, .help = "what the option --lun takes"},
	{.name = NULL},
};

static const struct command_arg lun_args[] = {LUN_ARG, {.name = NULL}};

static const struct command_arg resize_args[] = {
	LUN_ARG,
	{.name = "size",
		.kind = COMMAND_SIZE,
		.help = "make the file this long first; it cannot become shorter"},
	{.name = NULL},
};

static const struct command_arg eject_args[] = {
	LUN_ARG,
	{.name = "force", .kind = COMMAND_BOOL, .help = "even if the guest has locked the medium"},
	{.name = NULL},
};

const struct command_spec scsi_commands[] = {
	{.name = "luns", .help = "List the logical units", .run = list_units},
	{.name = "lun-add",
		.help = "Add a logical unit, and tell the guest",
		.args = add_args,
		.run = add_unit},
	{.name = "lun-remove",
		.help = "Take a logical unit away, and tell the guest; requests in flight end first",
		.args = lun_args,
		.run = remove_unit},
	{.name = "resize",
		.help = "Look how large a unit's disk is by now, and tell the guest",
		.args = resize_args,
		.run = resize_unit},
	{.name = "eject",
		.help = "Take the medium out of a removable unit",
		.args = eject_args,
		.run = eject},
	{.name = "insert",
		.help = "Put the medium of a removable unit back",
		.args = lun_args,
		.run = insert},
	{.name = NULL},
};
