/* SPDX-License-Identifier: MIT */
/*
 * Wire formats that linux/virtio_crypto.h lacks: the sessions in QEMU's vhost-user messages, which are structures of x86-64 in
 * the host's byte order, and grew in QEMU 8; and the length of the tag, which virtio 1.2 added.
 */
#ifndef CRYPTO_WIRE_H
#define CRYPTO_WIRE_H

#include <stdint.h>

#define CRYPTO_PROTOCOL_FEATURES BIT(7) /* VHOST_USER_PROTOCOL_F_CRYPTO_SESSION */

/* virtio 1.3, 5.9.7.5.3; little-endian */
struct crypto_aead_para {
	uint32_t iv_len, aad_len, src_data_len, dst_data_len;
	uint32_t tag_len; /* 0: the session's */
	uint32_t reserved;
};

struct crypto_message_sym {
	uint32_t cipher_alg, key_len, hash_alg, hash_result_len, auth_key_len, aad_len;
	uint8_t op_type, direction, hash_mode, alg_chain_order;
	uint32_t padding;
	uint64_t pointers[2]; /* of the front-end's; mean nothing here */
	uint8_t key[64], auth_key[512];
};

struct crypto_message_asym {
	uint32_t algo, key_type, key_len, reserved;
	uint64_t pointer;
	uint32_t padding, hash; /* ECDSA: the curve comes first */
	uint8_t key[1024];
};

struct crypto_message_7 {
	int64_t session_id;
	struct crypto_message_sym sym;
};

struct crypto_message_8 {
	uint64_t op_code;
	union {
		struct crypto_message_sym sym;
		struct crypto_message_asym asym;
	} u;
	int64_t session_id;
};

_Static_assert(sizeof(struct crypto_message_7) == 632, "as QEMU 7.2 has it");
_Static_assert(sizeof(struct crypto_message_8) == 1072, "as QEMU 10.0 has it");

#endif
