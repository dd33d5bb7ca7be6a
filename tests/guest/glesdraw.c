/* SPDX-License-Identifier: MIT */
/*
 * Draws with OpenGL ES on the first screen of a DRM device: four quarters by clearing them, and a square in the middle by a
 * shader. Runs in a guest that sees the host's file system.
 *
 * usage: glesdraw
 *
 * Prints the renderer's name, "size WIDTHxHEIGHT", then "drawn", and stays until it is killed.
 */
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES2/gl2.h>
#include <err.h>
#include <fcntl.h>
#include <gbm.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

static const char vertex_source[] = "attribute vec2 at; void main() { gl_Position = vec4(at, 0.0, 1.0); }";
static const char fragment_source[] = "precision mediump float; uniform vec4 colour;"
				      "void main() { gl_FragColor = colour; }";

static GLuint shader(GLenum type, const char *source)
{
	GLuint s = glCreateShader(type);
	GLint ok = 0;

	glShaderSource(s, 1, &source, NULL);
	glCompileShader(s);
	glGetShaderiv(s, GL_COMPILE_STATUS, &ok);
	if (!ok)
		errx(1, "a shader does not compile");
	return s;
}

static void quarter(int x, int y, int w, int h, float r, float g, float b)
{
	glScissor(x, y, w, h);
	glClearColor(r, g, b, 1);
	glClear(GL_COLOR_BUFFER_BIT);
}

static void draw(int w, int h)
{
	static const GLfloat square[] = {-0.5f, -0.5f, 0.5f, -0.5f, -0.5f, 0.5f, 0.5f, 0.5f};
	GLuint program = glCreateProgram();

	glViewport(0, 0, w, h);
	glEnable(GL_SCISSOR_TEST);
	quarter(0, h / 2, w / 2, h - h / 2, 1, 0, 0); /* of OpenGL: y goes up */
	quarter(w / 2, h / 2, w - w / 2, h - h / 2, 0, 1, 0);
	quarter(0, 0, w / 2, h / 2, 0, 0, 1);
	quarter(w / 2, 0, w - w / 2, h / 2, 1, 1, 1);
	glDisable(GL_SCISSOR_TEST);
	glAttachShader(program, shader(GL_VERTEX_SHADER, vertex_source));
	glAttachShader(program, shader(GL_FRAGMENT_SHADER, fragment_source));
	glBindAttribLocation(program, 0, "at");
	glLinkProgram(program);
	glUseProgram(program);
	glUniform4f(glGetUniformLocation(program, "colour"), 0.2f, 0.4f, 0.6f, 1);
	glVertexAttribPointer(0, 2, GL_FLOAT, GL_FALSE, 0, square);
	glEnableVertexAttribArray(0);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
	if (glGetError() != GL_NO_ERROR)
		errx(1, "OpenGL error");
}

static struct gbm_surface *context(
	struct gbm_device *gbm, EGLDisplay *display, EGLSurface *surface, uint32_t w, uint32_t h)
{
	static const EGLint want[] = {EGL_SURFACE_TYPE, EGL_WINDOW_BIT, EGL_RED_SIZE, 8, EGL_GREEN_SIZE, 8,
		EGL_BLUE_SIZE, 8, EGL_RENDERABLE_TYPE, EGL_OPENGL_ES2_BIT, EGL_NONE};
	static const EGLint version[] = {EGL_CONTEXT_CLIENT_VERSION, 2, EGL_NONE};
	struct gbm_surface *gs =
		gbm_surface_create(gbm, w, h, GBM_FORMAT_XRGB8888, GBM_BO_USE_SCANOUT | GBM_BO_USE_RENDERING);
	EGLConfig configs[64], config = NULL;
	EGLContext ctx;
	EGLint n = 0, id;

	*display = eglGetDisplay((EGLNativeDisplayType)gbm);
	if (!gs || !eglInitialize(*display, NULL, NULL) || !eglBindAPI(EGL_OPENGL_ES_API) ||
		!eglChooseConfig(*display, want, configs, 64, &n))
		errx(1, "no EGL on this device");
	for (EGLint i = 0; i < n; i++)
		if (eglGetConfigAttrib(*display, configs[i], EGL_NATIVE_VISUAL_ID, &id) &&
			id == GBM_FORMAT_XRGB8888)
			config = configs[i];
	ctx = eglCreateContext(*display, config, EGL_NO_CONTEXT, version);
	*surface = eglCreateWindowSurface(*display, config, (EGLNativeWindowType)gs, NULL);
	if (!eglMakeCurrent(*display, *surface, *surface, ctx))
		errx(1, "no context: 0x%x", eglGetError());
	return gs;
}

int main(void)
{
	int fd = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
	drmModeRes *res = fd < 0 ? NULL : drmModeGetResources(fd);
	drmModeConnector *connector = res ? drmModeGetConnector(fd, res->connectors[0]) : NULL;
	struct gbm_surface *gs;
	struct gbm_bo *bo;
	drmModeModeInfo mode;
	EGLDisplay display;
	EGLSurface surface;
	uint32_t fb;

	if (!connector || !connector->count_modes)
		errx(1, "no screen");
	mode = connector->modes[0];
	gs = context(gbm_create_device(fd), &display, &surface, mode.hdisplay, mode.vdisplay);
	printf("renderer %s\nsize %ux%u\n", (const char *)glGetString(GL_RENDERER), mode.hdisplay,
		mode.vdisplay);
	draw(mode.hdisplay, mode.vdisplay);
	eglSwapBuffers(display, surface);
	bo = gbm_surface_lock_front_buffer(gs);
	if (!bo || drmModeAddFB(fd, mode.hdisplay, mode.vdisplay, 24, 32, gbm_bo_get_stride(bo),
			   gbm_bo_get_handle(bo).u32, &fb) != 0)
		err(1, "no frame buffer");
	if (drmModeSetCrtc(fd, res->crtcs[0], fb, 0, 0, &connector->connector_id, 1, &mode) != 0)
		err(1, "SETCRTC");
	drmModeDirtyFB(fd, fb, NULL, 0);
	puts("drawn");
	fflush(stdout);
	for (;;)
		pause();
}
