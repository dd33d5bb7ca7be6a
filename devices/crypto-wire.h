/* SPDX-License-Identifier: MIT */
/*
 * Wire formats that linux/virtio_crypto.h lacks: the sessions in QEMU's vhost-user messages, which are structures of x86-64 in
 * the host's byte order, and grew in QEMU 8; the length of the tag, which virtio 1.2 added; the stateless mode's (virtio 1.3, 5.9).
 * All but QEMU's are little-endian.
 */
#ifndef CRYPTO_WIRE_H
#define CRYPTO_WIRE_H

#include <linux/virtio_crypto.h>
#include <stdint.h>

#define CRYPTO_PROTOCOL_FEATURES BIT(7) /* VHOST_USER_PROTOCOL_F_CRYPTO_SESSION */

struct crypto_aead_para {
	uint32_t iv_len, aad_len, src_data_len, dst_data_len;
	uint32_t tag_len; /* 0: the session's */
	uint32_t reserved;
};

enum { /* feature bits */
	CRYPTO_F_REVISION_1,
	CRYPTO_F_CIPHER_STATELESS, /* and then the other services, in their order */
};

enum { CRYPTO_FLAG_SESSION_MODE = 1 }; /* in virtio_crypto_op_header.flag */

/* The specification counts ECDSA thus, linux/virtio_crypto.h has DSA there. */
enum { CRYPTO_AKCIPHER_ECDSA_SPEC = 2 };

struct crypto_cipher_stateless {
	__le32 algo, key_len, op;
	__le32 iv_len, src_len, dst_len;
};

struct crypto_chain_stateless {
	__le32 order, session_aad_len;
	__le32 cipher_algo, key_len, op;
	__le32 hash_algo, auth_key_len, hash_mode;
	struct virtio_crypto_alg_chain_data_para para;
};

struct crypto_sym_stateless {
	union {
		struct crypto_cipher_stateless cipher;
		struct crypto_chain_stateless chain;
	} u;
	__le32 op_type;
};

struct crypto_hash_stateless {
	__le32 algo, src_len, result_len, reserved;
};

struct crypto_mac_stateless {
	__le32 algo, key_len, src_len, result_len;
};

struct crypto_aead_stateless {
	__le32 algo, key_len, op;
	__le32 iv_len, tag_len, aad_len, src_len, dst_len;
};

struct crypto_akcipher_stateless {
	__le32 algo, key_type, key_len;
	union {
		struct virtio_crypto_rsa_session_para rsa;
		struct virtio_crypto_ecdsa_session_para ecdsa;
	} u;
	__le32 src_len, dst_len;
};

_Static_assert(sizeof(struct crypto_sym_stateless) == 76, "72 bytes and the type");

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
