// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/model_config.h"

#include <set>
#include <sstream>

#include "base/error.h"
#include "io/tensor_info.h"

namespace flashvsr {
namespace {

// The student's config: every field in one place, for reading and for writing.
template <typename Visit>
void visit_fields(ModelConfig& c, Visit&& visit) {
  visit("", "name", c.name);
  visit("", "input_scale", c.input_scale);
  visit("", "has_transformer", c.has_transformer);
  visit("", "noise_scale", c.noise_scale);
  visit("", "blocks_per_query", c.blocks_per_query);
  visit("", "sparse_ratio", c.sparse_ratio);
  visit("", "kv_chunks", c.kv_chunks);
  visit("", "local_range", c.local_range);
  visit("dit", "dim", c.dit.dim);
  visit("dit", "heads", c.dit.heads);
  visit("dit", "layers", c.dit.layers);
  visit("dit", "ffn_dim", c.dit.ffn_dim);
  visit("dit", "freq_dim", c.dit.freq_dim);
  visit("dit", "text_dim", c.dit.text_dim);
  visit("dit", "latent_channels", c.dit.latent_channels);
  visit("dit", "has_text", c.dit.has_text);
  visit("dit", "eps", c.dit.eps);
  visit("lq_projector", "unshuffle", c.lq_projector.unshuffle);
  visit("lq_projector", "hidden1", c.lq_projector.hidden1);
  visit("lq_projector", "hidden2", c.lq_projector.hidden2);
  visit("lq_projector", "out_dim", c.lq_projector.out_dim);
  visit("lq_projector", "version", c.lq_projector.version);
  visit("tc_decoder", "latent_channels", c.tc_decoder.latent_channels);
  visit("tc_decoder", "cond_unshuffle", c.tc_decoder.cond_unshuffle);
  visit("tc_decoder", "channels", c.tc_decoder.channels);
  visit("tc_decoder", "mem_blocks", c.tc_decoder.mem_blocks);
  visit("tc_decoder", "up", c.tc_decoder.up);
  visit("tc_decoder", "grow", c.tc_decoder.grow);
  visit("tc_decoder", "deepen", c.tc_decoder.deepen);
  visit("tc_decoder", "final_shuffle", c.tc_decoder.final_shuffle);
  visit("tc_decoder", "skip", c.tc_decoder.skip);
  visit("tc_decoder", "residual", c.tc_decoder.residual);
}

// A hostile config must not ask for huge tensors or loops.
constexpr int64_t kMaxSize = 1 << 16;

struct FieldReader {
  const std::string& where;
  int64_t checked(const Json& json) const {
    const int64_t value = json.integer();
    FLASHVSR_CHECK(value >= 0 && value <= kMaxSize, ErrorCode::kModelInvalid, where, ": ", value, " is not in 0 .. ", kMaxSize);
    return value;
  }
  void operator()(const Json& json, std::string& field) const {
    FLASHVSR_CHECK(json.text().size() <= 100, ErrorCode::kModelInvalid, where, ": a text of ", json.text().size(), " bytes, at most 100 are allowed");
    field = json.text();
  }
  void operator()(const Json& json, int64_t& field) const { field = checked(json); }
  void operator()(const Json& json, double& field) const { field = json.number(); }
  void operator()(const Json& json, bool& field) const { field = json.boolean(); }
  void operator()(const Json& json, Version& field) const {
    FLASHVSR_CHECK(json.text() == "v1" || json.text() == "v1.1", ErrorCode::kModelInvalid, where, ": \"", printable(json.text()),
                   "\", expected v1 or v1.1");
    field = json.text() == "v1" ? Version::kV1 : Version::kV1_1;
  }
  template <size_t n>
  void operator()(const Json& json, std::array<int64_t, n>& field) const {
    FLASHVSR_CHECK(json.items().size() == n, ErrorCode::kModelInvalid, where, ": ", json.items().size(), " values, expected ", n);
    for (size_t i = 0; i < n; ++i) field[i] = checked(json.items()[i]);
  }
};

struct FieldWriter {
  std::ostringstream& out;
  void operator()(const std::string& field) const { out << json_quote(field); }
  void operator()(int64_t field) const { out << field; }
  void operator()(double field) const { out << json_number(field); }
  void operator()(bool field) const { out << (field ? "true" : "false"); }
  void operator()(Version field) const { out << (field == Version::kV1 ? "\"v1\"" : "\"v1.1\""); }
  template <size_t n>
  void operator()(const std::array<int64_t, n>& field) const {
    for (size_t i = 0; i < n; ++i) out << (i == 0 ? "[" : ", ") << field[i];
    out << "]";
  }
};

// What the modules take for granted: sizes that divide, stages that end at the output's size.
void check_config(const ModelConfig& c, const std::string& name) {
  const auto check = [&](bool condition, const auto&... what) {
    FLASHVSR_CHECK(condition, ErrorCode::kModelInvalid, name, ": ", what...);
  };
  check(c.input_scale >= 1 && 8 % c.input_scale == 0, "input_scale ", c.input_scale, ", expected 1, 2, 4 or 8");
  const TcDecoderConfig& tc = c.tc_decoder;
  check(tc.cond_unshuffle * c.input_scale == 8, "tc_decoder.cond_unshuffle ", tc.cond_unshuffle, ", expected 8 / input_scale");
  check(tc.latent_channels >= 1, "tc_decoder.latent_channels ", tc.latent_channels);
  int64_t up = tc.final_shuffle, grow = 1;
  for (size_t i = 0; i < 3; ++i) {
    check(tc.channels[i] >= 1 && tc.mem_blocks[i] <= 64 && tc.up[i] <= 8 && tc.grow[i] <= 4, "tc_decoder: stage ", i, " has ",
          tc.channels[i], " channels, ", tc.mem_blocks[i], " blocks, up ", tc.up[i], ", grow ", tc.grow[i]);
    up *= tc.up[i];
    grow *= tc.grow[i];
  }
  check(up == 8, "tc_decoder.up and final_shuffle enlarge by ", up, ", expected 8");
  check(grow == 4, "tc_decoder.grow lengthens by ", grow, ", expected 4");
  check(tc.channels[3] > 0 || (tc.up[2] == 1 && tc.grow[2] == 1), "tc_decoder: no third transition, but up or grow is not 1 there");
  if (!c.has_transformer) return;
  const DitConfig& dit = c.dit;
  check(dit.heads >= 1 && dit.dim >= dit.heads && dit.dim % dit.heads == 0 && dit.head_dim() % 2 == 0, "dit: dim ", dit.dim, " with ",
        dit.heads, " heads");
  check(dit.layers >= 1 && dit.layers <= 1024, "dit.layers ", dit.layers);
  check(dit.ffn_dim >= 1 && dit.freq_dim >= 2 && dit.freq_dim % 2 == 0, "dit: ffn_dim ", dit.ffn_dim, ", freq_dim ", dit.freq_dim);
  check(!dit.has_text || dit.text_dim >= 1, "dit.text_dim ", dit.text_dim);
  check(dit.latent_channels == tc.latent_channels, "dit has ", dit.latent_channels, " latent channels, tc_decoder ", tc.latent_channels);
  const LqProjectorConfig& lq = c.lq_projector;
  check(lq.unshuffle * c.input_scale == 16, "lq_projector.unshuffle ", lq.unshuffle, ", expected 16 / input_scale");
  check(lq.hidden1 >= 1 && lq.hidden2 >= 1, "lq_projector: hidden sizes ", lq.hidden1, ", ", lq.hidden2);
  check(lq.out_dim == dit.dim, "lq_projector.out_dim ", lq.out_dim, ", expected dit.dim ", dit.dim);
  check(c.blocks_per_query >= 1 && c.kv_chunks >= 1 && c.local_range >= 1 && c.sparse_ratio > 0, "blocks_per_query ", c.blocks_per_query,
        ", kv_chunks ", c.kv_chunks, ", local_range ", c.local_range, ", sparse_ratio ", c.sparse_ratio, ": all must be positive");
}

}  // namespace

ModelConfig config_from_json(const Json& json, const std::string& name) {
  ModelConfig config;
  std::set<std::string> known;
  visit_fields(config, [&](const std::string& group, const char* field, auto& value) {
    known.insert(group + "/" + field);
    if (!group.empty()) known.insert("/" + group);
    const std::string where = name + ": " + (group.empty() ? "" : group + ".") + field;
    try {
      const Json* parent = group.empty() ? &json : json.find(group);
      const Json* found = parent == nullptr ? nullptr : parent->find(field);
      if (found != nullptr) FieldReader{where}(*found, value);
    } catch (const Error& error) {
      const std::string message = error.what();
      throw Error(error.code(), message.rfind(name, 0) == 0 ? message : where + ": " + message);
    }
  });
  const auto refuse_unknown = [&](const std::string& group, const Json& object) {
    for (const auto& member : object.members()) {
      FLASHVSR_CHECK(known.count(group + "/" + member.key) != 0, ErrorCode::kModelInvalid, name, ": unknown field \"",
                     group.empty() ? "" : group + ".", printable(member.key), "\"");
    }
  };
  refuse_unknown("", json);
  for (const auto& member : json.members()) {
    if (member.value.is(Json::Type::kObject)) refuse_unknown(member.key, member.value);
  }
  check_config(config, name);
  return config;
}

std::string config_to_json(const ModelConfig& config) {
  std::ostringstream out;
  std::string open_group;
  bool is_first = true;
  ModelConfig copy = config;
  out << "{\n";
  visit_fields(copy, [&](const std::string& group, const char* field, const auto& value) {
    if (group != open_group) {
      out << (open_group.empty() ? "" : "\n  }") << ",\n  \"" << group << "\": {";
      open_group = group;
      is_first = true;
      out << "\n";
    } else if (!is_first) {
      out << ",\n";
    }
    out << (group.empty() ? "  \"" : "    \"") << field << "\": ";
    FieldWriter{out}(value);
    is_first = false;
  });
  out << "\n  }\n}\n";
  return out.str();
}

}  // namespace flashvsr
