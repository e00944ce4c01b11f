/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * libnvcuvid.so.1 without a decoder: nvcodec registers cudaupload and cudadownload only where it
 * finds one of NVIDIA's codec libraries. */
#define NOT_SUPPORTED 801 /* CUDA_ERROR_NOT_SUPPORTED */
#define REFUSED(name) \
  __attribute__((visibility("default"))) int name(void) { return NOT_SUPPORTED; }
REFUSED(cuvidCtxLockCreate)
REFUSED(cuvidCtxLockDestroy)
REFUSED(cuvidCtxLock)
REFUSED(cuvidCtxUnlock)
REFUSED(cuvidCreateDecoder)
REFUSED(cuvidDestroyDecoder)
REFUSED(cuvidDecodePicture)
REFUSED(cuvidCreateVideoParser)
REFUSED(cuvidParseVideoData)
REFUSED(cuvidDestroyVideoParser)
REFUSED(cuvidMapVideoFrame64)
REFUSED(cuvidUnmapVideoFrame64)
REFUSED(cuvidGetDecoderCaps)
