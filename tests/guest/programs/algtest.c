/* SPDX-License-Identifier: MIT */
/*
 * Compares two implementations of a cipher in the guest's kernel, by AF_ALG: whatever one encrypts must be what the other one does,
 * and each must decrypt it again.
 *
 *	algtest DRIVER DRIVER KEYLEN [SECONDS]
 *	algtest DRIVER - KEYLEN [SECONDS]
 *
 * for example virtio_crypto_aes_cbc and cbc(aes-generic). With SECONDS the first one works for so long, and the result is
 * printed in KiB/s. With - in place of the second one the ciphertext is printed that the first one makes of the bytes
 * 0 to 255, sixteen times over, with the key and IV that are printed too; with SECONDS as well it only works.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/if_alg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 65536, BLOCK = 16 };

static void die(const char *what)
{
	fprintf(stderr, "algtest: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int cipher_open(const char *driver, const uint8_t *key, size_t len)
{
	struct sockaddr_alg a = {.salg_family = AF_ALG, .salg_type = "skcipher"};
	int fd = socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), op;

	snprintf((char *)a.salg_name, sizeof(a.salg_name), "%s", driver);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		die(driver);
	if (setsockopt(fd, SOL_ALG, ALG_SET_KEY, key, (socklen_t)len) < 0)
		die("ALG_SET_KEY");
	op = accept(fd, NULL, NULL);
	if (op < 0)
		die("accept");
	return op;
}

static void run(int fd, int op, const uint8_t *iv, const uint8_t *in, uint8_t *out, size_t len)
{
	char control[CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(struct af_alg_iv) + BLOCK)] = {0};
	struct iovec v = {.iov_base = (void *)(uintptr_t)in, .iov_len = len};
	struct msghdr m = {
		.msg_control = control, .msg_controllen = sizeof(control), .msg_iov = &v, .msg_iovlen = 1};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct af_alg_iv *alg_iv;
	uint32_t what = (uint32_t)op;
	size_t got = 0;

	c->cmsg_level = SOL_ALG;
	c->cmsg_type = ALG_SET_OP;
	c->cmsg_len = CMSG_LEN(sizeof(what));
	memcpy(CMSG_DATA(c), &what, sizeof(what));
	c = CMSG_NXTHDR(&m, c);
	c->cmsg_level = SOL_ALG;
	c->cmsg_type = ALG_SET_IV;
	c->cmsg_len = CMSG_LEN(sizeof(*alg_iv) + BLOCK);
	alg_iv = (struct af_alg_iv *)CMSG_DATA(c);
	alg_iv->ivlen = BLOCK;
	memcpy(alg_iv->iv, iv, BLOCK);
	if (sendmsg(fd, &m, 0) != (ssize_t)len)
		die("sendmsg");
	while (got < len) {
		ssize_t n = read(fd, out + got, len - got);

		if (n <= 0)
			die("read");
		got += (size_t)n;
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void work(int fd, double seconds)
{
	static uint8_t plain[16384], coded[16384];
	uint8_t iv[BLOCK] = {0};
	double start = now();
	size_t total = 0;

	while (now() - start < seconds) {
		run(fd, ALG_OP_ENCRYPT, iv, plain, coded, sizeof(plain));
		total += sizeof(plain) / 1024;
	}
	printf("rate %.0f\n", (double)total / (now() - start));
}

static void same(const uint8_t *a, const uint8_t *b, size_t len, const char *what)
{
	if (memcmp(a, b, len) == 0)
		return;
	fprintf(stderr, "algtest: %s differs, %zu bytes\n", what, len);
	exit(1);
}

static void print_hex(const char *what, const uint8_t *p, size_t n)
{
	printf("%s ", what);
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('\n');
}

static void print(int fd, const uint8_t *key, size_t key_len)
{
	uint8_t iv[BLOCK], plain[4096], coded[4096];

	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)i;
	memcpy(iv, plain + 100, sizeof(iv));
	run(fd, ALG_OP_ENCRYPT, iv, plain, coded, sizeof(plain));
	print_hex("key", key, key_len);
	print_hex("iv", iv, sizeof(iv));
	print_hex("coded", coded, sizeof(coded));
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {16, 32, 512, 4096, 4112, 16384, LARGEST};
	static uint8_t plain[LARGEST], a[LARGEST], b[LARGEST];
	uint8_t key[64], iv[BLOCK];
	size_t key_len = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	int one, other;

	if (key_len < 16 || key_len > sizeof(key))
		return 2;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 29 + 7);
	one = cipher_open(argv[1], key, key_len);
	if (strcmp(argv[2], "-") == 0) {
		if (argc > 4)
			work(one, atof(argv[4]));
		else
			print(one, key, key_len);
		return 0;
	}
	other = cipher_open(argv[2], key, key_len);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			for (size_t k = 0; k < sizes[i]; k++)
				plain[k] = (uint8_t)(k * k + round + i);
			for (unsigned k = 0; k < BLOCK; k++)
				iv[k] = (uint8_t)(k + round * 16);
			run(one, ALG_OP_ENCRYPT, iv, plain, a, sizes[i]);
			run(other, ALG_OP_ENCRYPT, iv, plain, b, sizes[i]);
			same(a, b, sizes[i], "the ciphertext");
			run(one, ALG_OP_DECRYPT, iv, b, a, sizes[i]);
			same(a, plain, sizes[i], "the plaintext");
		}
	}
	if (argc > 4)
		work(one, atof(argv[4]));
	return 0;
}
