/* SPDX-License-Identifier: MIT */
/*
 * The crypto device against the test vectors of NIST in crypto-cavp.txt, in the layouts without and with revision 1, and
 * stateless. Of signatures the device makes the digest, too.
 */
#include <stdio.h>
#include <stdlib.h>

#include "crypto-driver.h"

enum { LINE = 40000, FIELDS = 10 };

struct name {
	const char *name;
	uint32_t value;
	uint32_t rsa; /* of hashes */
};

static const struct name ciphers[] = {
	{"aes-ecb", VIRTIO_CRYPTO_CIPHER_AES_ECB, 0},
	{"aes-cbc", VIRTIO_CRYPTO_CIPHER_AES_CBC, 0},
	{"aes-ctr", VIRTIO_CRYPTO_CIPHER_AES_CTR, 0},
	{"aes-xts", VIRTIO_CRYPTO_CIPHER_AES_XTS, 0},
	{"3des-ecb", VIRTIO_CRYPTO_CIPHER_3DES_ECB, 0},
	{"3des-cbc", VIRTIO_CRYPTO_CIPHER_3DES_CBC, 0},
	{NULL, 0, 0},
};

static const struct name hashes[] = {
	{"md5", VIRTIO_CRYPTO_HASH_MD5, VIRTIO_CRYPTO_RSA_MD5},
	{"sha1", VIRTIO_CRYPTO_HASH_SHA1, VIRTIO_CRYPTO_RSA_SHA1},
	{"sha224", VIRTIO_CRYPTO_HASH_SHA_224, VIRTIO_CRYPTO_RSA_SHA224},
	{"sha256", VIRTIO_CRYPTO_HASH_SHA_256, VIRTIO_CRYPTO_RSA_SHA256},
	{"sha384", VIRTIO_CRYPTO_HASH_SHA_384, VIRTIO_CRYPTO_RSA_SHA384},
	{"sha512", VIRTIO_CRYPTO_HASH_SHA_512, VIRTIO_CRYPTO_RSA_SHA512},
	{"sha3-224", VIRTIO_CRYPTO_HASH_SHA3_224, 0},
	{"sha3-256", VIRTIO_CRYPTO_HASH_SHA3_256, 0},
	{"sha3-384", VIRTIO_CRYPTO_HASH_SHA3_384, 0},
	{"sha3-512", VIRTIO_CRYPTO_HASH_SHA3_512, 0},
	{"shake128", VIRTIO_CRYPTO_HASH_SHA3_SHAKE128, 0},
	{"shake256", VIRTIO_CRYPTO_HASH_SHA3_SHAKE256, 0},
	{NULL, 0, 0},
};

static const struct name macs[] = {
	{"hmac-md5", VIRTIO_CRYPTO_MAC_HMAC_MD5, 0},
	{"hmac-sha1", VIRTIO_CRYPTO_MAC_HMAC_SHA1, 0},
	{"hmac-sha224", VIRTIO_CRYPTO_MAC_HMAC_SHA_224, 0},
	{"hmac-sha256", VIRTIO_CRYPTO_MAC_HMAC_SHA_256, 0},
	{"hmac-sha384", VIRTIO_CRYPTO_MAC_HMAC_SHA_384, 0},
	{"hmac-sha512", VIRTIO_CRYPTO_MAC_HMAC_SHA_512, 0},
	{"cmac-3des", VIRTIO_CRYPTO_MAC_CMAC_3DES, 0},
	{"cmac-aes", VIRTIO_CRYPTO_MAC_CMAC_AES, 0},
	{NULL, 0, 0},
};

static const struct name aeads[] = {
	{"gcm", VIRTIO_CRYPTO_AEAD_GCM, 0},
	{"ccm", VIRTIO_CRYPTO_AEAD_CCM, 0},
	{NULL, 0, 0},
};

static const struct name curves[] = {
	{"p-192", VIRTIO_CRYPTO_CURVE_NIST_P192, 0},
	{"p-224", VIRTIO_CRYPTO_CURVE_NIST_P224, 0},
	{"p-256", VIRTIO_CRYPTO_CURVE_NIST_P256, 0},
	{"p-384", VIRTIO_CRYPTO_CURVE_NIST_P384, 0},
	{"p-521", VIRTIO_CRYPTO_CURVE_NIST_P521, 0},
	{NULL, 0, 0},
};

static const struct name *find(const struct name *names, const char *name)
{
	while (names->name && strcmp(names->name, name) != 0)
		names++;
	CHECK(names->name != NULL);
	return names;
}

/* What a line says, from the second field on; x[i] is field i as bytes. */
struct vector {
	unsigned line;
	const char *text[FIELDS];
	struct bytes x[FIELDS];
};

static struct bytes result; /* of the last request */

static void run(struct driver *d, struct session *s, uint32_t opcode, const struct work *w, uint8_t status,
	const struct bytes *want)
{
	d->pieces = 1 + d->pieces % 3;
	CHECK_EQ(session_open(d, s), OK);
	CHECK_EQ(session_run(d, d->data[0], s, opcode, w), status);
	if (want)
		CHECK_MEM(d->in, want->p, want->n);
	memcpy(result.p, d->in, d->used);
	CHECK_EQ(session_close(d, s), OK);
}

static void cipher(struct driver *d, struct vector *v)
{
	struct session s = {.algo = find(ciphers, v->text[0])->value, .encrypt = true, .key = &v->x[1]};
	struct work w = {.iv = &v->x[2], .src = &v->x[3], .dst_len = v->x[3].n};

	run(d, &s, VIRTIO_CRYPTO_CIPHER_ENCRYPT, &w, OK, &v->x[4]);
	s.encrypt = false;
	w.src = &v->x[4];
	run(d, &s, VIRTIO_CRYPTO_CIPHER_DECRYPT, &w, OK, &v->x[3]);
}

/* The digest, in result. */
static void digest(struct driver *d, const char *name, const struct bytes *message, uint32_t len)
{
	struct session s = {
		.service = VIRTIO_CRYPTO_SERVICE_HASH, .algo = find(hashes, name)->value, .result_len = len};

	run(d, &s, VIRTIO_CRYPTO_HASH, &(struct work){.src = message, .result_len = len}, OK, NULL);
}

static void hash(struct driver *d, struct vector *v)
{
	digest(d, v->text[0], &v->x[1], (uint32_t)v->x[2].n);
	CHECK_MEM(result.p, v->x[2].p, v->x[2].n);
}

static void mac(struct driver *d, struct vector *v)
{
	struct session s = {.service = VIRTIO_CRYPTO_SERVICE_MAC,
		.algo = find(macs, v->text[0])->value,
		.auth = &v->x[1],
		.result_len = (uint32_t)v->x[3].n};

	run(d, &s, VIRTIO_CRYPTO_MAC, &(struct work){.src = &v->x[2], .result_len = v->x[3].n}, OK, &v->x[3]);
}

static void aead(struct driver *d, struct vector *v)
{
	bool good = strcmp(v->text[7], "ok") == 0;
	struct bytes *plain = &v->x[4], sealed = v->x[5];
	struct session s = {.service = VIRTIO_CRYPTO_SERVICE_AEAD,
		.algo = find(aeads, v->text[0])->value,
		.encrypt = true,
		.tag_len = (uint32_t)v->x[6].n,
		.key = &v->x[1]};
	struct work w = {.iv = &v->x[2], .aad = &v->x[3], .src = plain};

	memcpy(sealed.p + sealed.n, v->x[6].p, v->x[6].n);
	sealed.n += v->x[6].n;
	w.dst_len = sealed.n;
	if (good)
		run(d, &s, VIRTIO_CRYPTO_AEAD_ENCRYPT, &w, OK, &sealed);
	s.encrypt = false;
	w.src = &sealed;
	w.dst_len = v->x[5].n;
	run(d, &s, VIRTIO_CRYPTO_AEAD_DECRYPT, &w, good ? OK : BADMSG, good ? plain : NULL);
}

/* --- key pairs --- */

static void der_length(struct bytes *to, size_t n)
{
	if (n > 255)
		to->p[to->n++] = 0x82;
	else if (n > 127)
		to->p[to->n++] = 0x81;
	if (n > 255)
		to->p[to->n++] = (uint8_t)(n >> 8);
	to->p[to->n++] = (uint8_t)n;
}

static void der_number(struct bytes *to, const struct bytes *x)
{
	size_t skip = 0;
	bool zero;

	while (skip + 1 < x->n && !x->p[skip])
		skip++;
	zero = x->p[skip] & 0x80;
	to->p[to->n++] = 2;
	der_length(to, x->n - skip + zero);
	if (zero)
		to->p[to->n++] = 0;
	memcpy(to->p + to->n, x->p + skip, x->n - skip);
	to->n += x->n - skip;
}

/* SEQUENCE { a INTEGER, b INTEGER } */
static struct bytes der_pair(const struct bytes *a, const struct bytes *b)
{
	struct bytes both = {.n = 0}, der = {.n = 0};

	der_number(&both, a);
	der_number(&both, b);
	der.p[der.n++] = 0x30;
	der_length(&der, both.n);
	memcpy(der.p + der.n, both.p, both.n);
	der.n += both.n;
	return der;
}

/* A signature or key that is not right: the key may be refused alone. */
static void refused(struct driver *d, struct session *s, const struct work *w)
{
	uint8_t status;

	if (session_open(d, s) != OK)
		return;
	status = session_run(d, d->data[0], s, VIRTIO_CRYPTO_AKCIPHER_VERIFY, w);
	CHECK(status == REJECTED || (status == ERR && d->mode == ALONE));
	CHECK_EQ(session_close(d, s), OK);
}

static void verify(struct driver *d, struct session *s, const char *name, const struct bytes *message,
	const struct bytes *signature, bool good)
{
	uint32_t len = (uint32_t)(strcmp(name, "sha1") == 0 ? 20 : atoi(name + 3) / 8);
	struct bytes sum = {.n = len};
	struct work w = {.src = signature, .more = &sum};

	digest(d, name, message, len);
	memcpy(sum.p, result.p, len);
	s->service = VIRTIO_CRYPTO_SERVICE_AKCIPHER;
	if (good)
		run(d, s, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &w, OK, NULL);
	else
		refused(d, s, &w);
}

static void rsa(struct driver *d, struct vector *v)
{
	struct bytes key = der_pair(&v->x[1], &v->x[2]);
	struct session s = {.algo = VIRTIO_CRYPTO_AKCIPHER_RSA,
		.key = &key,
		.para = {VIRTIO_CRYPTO_RSA_PKCS1_PADDING, find(hashes, v->text[0])->rsa}};

	verify(d, &s, v->text[0], &v->x[3], &v->x[4], strcmp(v->text[5], "ok") == 0);
}

static void ecdsa(struct driver *d, struct vector *v)
{
	struct bytes point = {.p = {4}, .n = 1}, signature = der_pair(&v->x[5], &v->x[6]);
	const struct name *curve = find(curves, v->text[0]);
	struct session s = {.algo = VIRTIO_CRYPTO_AKCIPHER_ECDSA, .key = &point, .para = {curve->value}};
	size_t size = ((size_t)atoi(v->text[0] + 2) + 7) / 8;

	for (unsigned i = 2; i < 4; i++) { /* the numbers may have fewer digits */
		memcpy(point.p + point.n + size - v->x[i].n, v->x[i].p, v->x[i].n);
		point.n += size;
	}
	verify(d, &s, v->text[1], &v->x[4], &signature, strcmp(v->text[7], "ok") == 0);
}

/* --- the file --- */

static const struct kind {
	const char *name;
	void (*run)(struct driver *d, struct vector *v);
} kinds[] = {
	{"cipher", cipher}, {"hash", hash}, {"mac", mac}, {"aead", aead}, {"rsa", rsa}, {"ecdsa", ecdsa}};

static const struct kind *kind;
static struct vector vector;

static void where(void)
{
	printf("# at line %u\n", vector.line);
}

static bool hexadecimal(const char *text)
{
	return text[strspn(text, "0123456789abcdef")] == 0 && strlen(text) % 2 == 0;
}

static void fields(char *line)
{
	char *save = NULL, *text = strtok_r(line, " \n", &save);

	for (unsigned i = 0; i < FIELDS; i++) {
		text = strtok_r(NULL, " \n", &save);
		vector.text[i] = text;
		vector.x[i].n = 0;
		if (text && hexadecimal(text))
			vector.x[i] = hex(text);
	}
}

static void file(const struct fe_mode *m)
{
	const char *srcdir = getenv("srcdir");
	static char line[LINE];
	char path[400];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/device/crypto-cavp.txt", srcdir ? srcdir : "..");
	tap.on_fail = where;
	for (unsigned mode = 0; mode < DRIVER_MODES; mode++) {
		struct driver d;

		f = fopen(path, "re");
		CHECK(f != NULL);
		driver_up(&d, m, mode, NULL);
		for (vector.line = 1; fgets(line, sizeof(line), f); vector.line++) {
			size_t len = strlen(kind->name);

			if (strncmp(line, kind->name, len) != 0 || line[len] != ' ')
				continue;
			fields(line);
			kind->run(&d, &vector);
			n++;
		}
		fclose(f);
		fe_end(&d.fe);
	}
	tap_note("%u answers of %s", n, kind->name);
	CHECK(n >= DRIVER_MODES * 20);
}

int main(void)
{
	for (kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++)
		fe_each_layout(kind->name, file);
	return tap_done();
}
