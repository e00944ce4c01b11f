// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/support/fixture.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "io/json.h"
#include "io/weights.h"

namespace flashvsr {
namespace {

namespace fs = std::filesystem;

void flatten_fields(const Json& json, const std::string& path, std::map<std::string, std::string>& out) {
  const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  switch (json.type()) {
    case Json::Type::kObject:
      for (const JsonMember& member : json.members()) flatten_fields(member.value, below(member.key), out);
      break;
    case Json::Type::kArray:
      out[path + ".#"] = std::to_string(json.items().size());
      for (size_t i = 0; i < json.items().size(); ++i) flatten_fields(json.items()[i], below(std::to_string(i)), out);
      break;
    case Json::Type::kString: out[path] = json.text(); break;
    case Json::Type::kBool: out[path] = json.boolean() ? "1" : "0"; break;
    case Json::Type::kNull: out[path] = ""; break;
    default: out[path] = json_number(json.number());
  }
}

}  // namespace

Fixture::Fixture(const std::string& folder) : folder_(folder) {
  std::ifstream file(folder + "/case.json");
  FLASHVSR_CHECK(file.is_open(), ErrorCode::kModelNotFound, folder, ": no case.json");
  std::stringstream text;
  text << file.rdbuf();
  flatten_fields(parse_json(text.str(), folder + "/case.json"), "", fields_);
  if (fs::exists(folder + "/data.safetensors")) tensors_ = read_tensors(folder + "/data.safetensors");
}

const at::Tensor& Fixture::operator[](const std::string& tensor) const {
  const auto it = tensors_.find(tensor);
  FLASHVSR_CHECK(it != tensors_.end(), ErrorCode::kModelInvalid, folder_, ": no tensor ", tensor);
  return it->second;
}

at::Tensor Fixture::frames(const std::string& tensor) const {
  return ((*this)[tensor].to(at::kFloat) / 255 * 2 - 1).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

double Fixture::number(const std::string& path) const { return std::stod(text(path)); }

std::string Fixture::text(const std::string& path) const {
  const auto it = fields_.find(path);
  FLASHVSR_CHECK(it != fields_.end(), ErrorCode::kModelInvalid, folder_, "/case.json: no field ", path);
  return it->second;
}

int64_t Fixture::length(const std::string& path) const { return static_cast<int64_t>(number(path + ".#")); }

std::vector<std::string> find_cases(const std::string& root) {
  std::vector<std::string> cases;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().filename() == "case.json") cases.push_back(fs::relative(entry.path().parent_path(), root).string());
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

std::string fixtures_root() {
  const char* given = std::getenv("FLASHVSR_FIXTURES");
  return given != nullptr && given[0] != '\0' ? given : FLASHVSR_FIXTURES_DEFAULT;
}

}  // namespace flashvsr
