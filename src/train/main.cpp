// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-train: trains the stages of the embedded student. See --help.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "train/trainer.h"

namespace {

using flashvsr::Error;
using flashvsr::ErrorCode;

constexpr char kHelp[] =
    "flashvsr-train: train a stage of the embedded student\n"
    "\n"
    "  flashvsr-train --stage decoder --train SHARD... --out DIR (--iterations N | --minutes M)\n"
    "\n"
    "Data (safetensors shards from flashvsr-dataset or tools/make_shards.py)\n"
    "  --train SHARD          clips and stills; may be given several times\n"
    "  --lq SHARD             the same clips' low-quality side after a real codec, a quarter of the sizes cut\n"
    "                         to multiples of 8, under the same names; may be given several times\n"
    "  --validation SHARD     held-out clips; may be given several times\n"
    "  --crop N               HQ pixels, a multiple of 8 (256)\n"
    "  --frames N             per sample, 4n+1 (21)\n"
    "  --batch N              samples per iteration (8)\n"
    "  --still-share P        share of samples made from stills (0.35)\n"
    "  --clean P              share of samples that are only reduced (0.6)\n"
    "\n"
    "Stage\n"
    "  --stage NAME           decoder: alone, latents zero (the default); autoencoder: decoder and a tiny encoder;\n"
    "                         student: projector and transformer through the frozen decoder of --init, the\n"
    "                         checkpoint of an autoencoder run; 25 + 8n frames, crop a multiple of 128\n"
    "  --channels A,B,C       decoder widths (64,48,32)\n"
    "  --mem-blocks A,B,C     MemBlocks per decoder stage (2,2,2)\n"
    "  --mse-share P          part of the decoder's run that minimises the squared error (0.3)\n"
    "  --init FILE            start from another run's checkpoint or exported model\n"
    "\n"
    "Run\n"
    "  --out DIR              log.jsonl, checkpoint.safetensors, config.json, model.safetensors\n"
    "  --resume               go on from DIR/checkpoint.safetensors if it is there\n"
    "  --iterations N         length of the run\n"
    "  --minutes M            or: as many iterations as fit, from the speed of the first 140\n"
    "  --learning-rate R      peak (0.001)\n"
    "  --ema D                decay of the weights' average (0.998)\n"
    "  --seed N               (1)\n"
    "  --device NAME          auto, cpu, cuda, cuda:N (auto)\n"
    "  --precision NAME       auto, fp32, bf16: what modules compute in (auto: bf16 on cuda)\n"
    "  --threads N            CPU threads (LibTorch's default)\n"
    "  --log-every N (100)    --validate-every N (1000)\n";

std::vector<int64_t> numbers(const std::string& text, size_t count) {
  std::vector<int64_t> values;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, ',');) values.push_back(std::stoll(part));
  FLASHVSR_CHECK(values.size() == count, ErrorCode::kInvalidArgument, "\"", text, "\" is not ", count, " numbers");
  return values;
}

int run(int argc, char** argv) {
  flashvsr::train::TrainerOptions options;
    std::vector<std::string> train_shards, lq_shards, validation_shards;
  std::string init, device = "auto", precision = "auto";
  bool should_resume = false;
  using Setter = std::function<void(const std::string&)>;
  const std::map<std::string, Setter> setters = {
      {"--train", [&](const std::string& v) { train_shards.push_back(v); }},
      {"--validation", [&](const std::string& v) { validation_shards.push_back(v); }},
      {"--lq", [&](const std::string& v) { lq_shards.push_back(v); }},
      {"--mse-share", [&](const std::string& v) { options.mse_share = std::stod(v); }},
      {"--crop", [&](const std::string& v) { options.samples.size = std::stoll(v); }},
      {"--frames", [&](const std::string& v) { options.samples.frames = std::stoll(v); }},
      {"--batch", [&](const std::string& v) { options.samples.batch = std::stoll(v); }},
      {"--still-share", [&](const std::string& v) { options.samples.still_share = std::stod(v); }},
      {"--clean", [&](const std::string& v) { options.degradation.clean = std::stod(v); }},
      {"--stage", [&](const std::string& v) { options.stage = flashvsr::train::stage_named(v); }},
      {"--channels",
       [&](const std::string& v) {
         const auto n = numbers(v, 3);
         options.model.tc_decoder.channels = {n[0], n[1], n[2], 0};
       }},
      {"--mem-blocks",
       [&](const std::string& v) {
         const auto n = numbers(v, 3);
         options.model.tc_decoder.mem_blocks = {n[0], n[1], n[2]};
       }},
      {"--init", [&](const std::string& v) { init = v; }},
      {"--out", [&](const std::string& v) { options.out = v; }},
      {"--iterations", [&](const std::string& v) { options.iterations = std::stoll(v); }},
      {"--minutes", [&](const std::string& v) { options.minutes = std::stod(v); }},
      {"--learning-rate", [&](const std::string& v) { options.learning_rate = std::stod(v); }},
      {"--ema", [&](const std::string& v) { options.adam.ema_decay = std::stod(v); }},
      {"--seed", [&](const std::string& v) { options.seed = std::stoull(v); }},
      {"--device", [&](const std::string& v) { device = v; }},
      {"--precision", [&](const std::string& v) { precision = v; }},
      {"--threads", [&](const std::string& v) { at::set_num_threads(std::stoi(v)); }},
      {"--log-every", [&](const std::string& v) { options.log_every = std::stoll(v); }},
      {"--validate-every", [&](const std::string& v) { options.validate_every = std::stoll(v); }},
  };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (name == "--resume") {
      should_resume = true;
      continue;
    }
    const auto setter = setters.find(name);
    FLASHVSR_CHECK(setter != setters.end(), ErrorCode::kInvalidArgument, "unknown option ", name, "; see --help");
    FLASHVSR_CHECK(i + 1 < argc, ErrorCode::kInvalidArgument, name, " needs a value");
    try {
      setter->second(argv[++i]);
    } catch (const std::logic_error&) {  // std::stoll and its kin
      throw Error(ErrorCode::kInvalidArgument, name + ": \"" + argv[i] + "\" is not a number");
    }
  }
  FLASHVSR_CHECK(!train_shards.empty() && !options.out.empty(), ErrorCode::kInvalidArgument,
                 "--train and --out are needed; see --help");

  const bool has_cuda = at::globalContext().hasCUDA();
  if (device == "auto") device = has_cuda ? "cuda" : "cpu";
  options.device = c10::Device(device);
  if (options.device.is_cuda() && !options.device.has_index()) options.device = c10::Device(c10::kCUDA, 0);
  FLASHVSR_CHECK(!options.device.is_cuda() || has_cuda, ErrorCode::kNoDevice, "no CUDA device, or a LibTorch without CUDA");
  FLASHVSR_CHECK(precision == "auto" || precision == "fp32" || precision == "bf16", ErrorCode::kInvalidArgument,
                 "precision \"", precision, "\" is none of: auto, fp32, bf16");
  const bool is_bf16 = precision == "bf16" || (precision == "auto" && options.device.is_cuda());
  options.compute_dtype = is_bf16 ? c10::kBFloat16 : c10::kFloat;

  auto training = flashvsr::train::Dataset::load(train_shards, options.device, lq_shards);
  auto validation = flashvsr::train::Dataset::load(validation_shards, options.device);
  std::printf("{\"device\":\"%s\",\"clips\":%zu,\"stills\":%zu,\"validation_clips\":%zu,\"seed\":%llu}\n", device.c_str(),
              training.videos().size(), training.stills().size(), validation.videos().size(),
              static_cast<unsigned long long>(options.seed));
  const std::string out = options.out;
  flashvsr::train::Trainer trainer(options, std::move(training), std::move(validation));
  if (!init.empty()) trainer.initialise_from(init);
  if (should_resume && std::ifstream(out + "/checkpoint.safetensors").good()) {
    trainer.resume(out + "/checkpoint.safetensors");
  }
  trainer.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashvsr-train: %s\n", error.what());
    return 1;
  }
}
