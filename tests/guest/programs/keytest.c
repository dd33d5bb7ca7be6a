/* SPDX-License-Identifier: MIT */
/*
 * Works with a key pair in the guest's kernel, by keyctl's pkey operations, which the kernel hands to whoever offers the algorithm
 * with the highest priority.
 *
 *	keytest OPERATION INFO KEY IN OUT
 *
 * OPERATION: encrypt, decrypt, sign, or verify, which takes the signature from OUT; INFO: "enc=pkcs1 hash=sha256", "enc=raw" …;
 * KEY: a file with a private key in PKCS#8 DER, or a certificate.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LARGEST = 16384 };

static void die(const char *what)
{
	fprintf(stderr, "keytest: %s: %s\n", what, strerror(errno));
	exit(1);
}

static size_t load(const char *path, char *to)
{
	FILE *f = fopen(path, "r");
	size_t n;

	if (!f)
		die(path);
	n = fread(to, 1, LARGEST, f);
	fclose(f);
	return n;
}

static void store(const char *path, const char *from, size_t n)
{
	FILE *f = fopen(path, "w");

	if (!f || fwrite(from, 1, n, f) != n || fclose(f) != 0)
		die(path);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int op;
	} ops[] = {{"encrypt", KEYCTL_PKEY_ENCRYPT}, {"decrypt", KEYCTL_PKEY_DECRYPT},
		{"sign", KEYCTL_PKEY_SIGN}, {"verify", KEYCTL_PKEY_VERIFY}};
	static char key[LARGEST], in[LARGEST], out[LARGEST];
	struct keyctl_pkey_params params = {.key_id = 0};
	struct keyctl_pkey_query query;
	size_t key_len;
	long id, n;
	int op = -1;

	if (argc != 6)
		return 2;
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (strcmp(argv[1], ops[i].name) == 0)
			op = ops[i].op;
	key_len = load(argv[3], key);
	params.in_len = (__u32)load(argv[4], in);
	id = syscall(SYS_add_key, "asymmetric", "test", key, key_len, KEY_SPEC_PROCESS_KEYRING);
	if (id < 0)
		die("add_key");
	params.key_id = (__s32)id;
	if (syscall(SYS_keyctl, KEYCTL_PKEY_QUERY, id, 0, argv[2], &query) < 0)
		die("query");
	params.out_len = op == KEYCTL_PKEY_VERIFY ? (__u32)load(argv[5], out) : query.key_size / 8;
	n = syscall(SYS_keyctl, op, &params, argv[2], in, out);
	if (n < 0)
		die(argv[1]);
	if (op != KEYCTL_PKEY_VERIFY)
		store(argv[5], out, (size_t)n);
	return 0;
}
