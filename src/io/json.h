// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A strict JSON reader (RFC 8259) for files that strangers write: safetensors headers,
// config.json, case.json.
//
//   const Json root = parse_json(text, "config.json");
//   root.at("dit").at("dim").integer();
//
// Refused: anything after the value but white space, duplicate keys, bad UTF-8, lone surrogates,
// NaN and Infinity, numbers outside double, integers outside int64 (a number without '.' and
// exponent is an integer, kept exactly), and what exceeds the limits below.
//
// Errors: throws Error (kModelInvalid) with the source's name and the byte where it happened, or
// the path of the value that has the wrong type.
// Thread-safety: immutable after construction.
#ifndef FLASHVSR_IO_JSON_H_
#define FLASHVSR_IO_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flashvsr {

struct JsonMember;

class Json {
 public:
  enum class Type { kNull, kBool, kInteger, kDouble, kString, kArray, kObject };

  Type type() const { return type_; }
  bool is(Type type) const { return type_ == type; }

  // Each throws if the value is of another type; `number` takes integers too.
  bool boolean() const;
  int64_t integer() const;
  double number() const;
  const std::string& text() const;
  const std::vector<Json>& items() const;
  const std::vector<JsonMember>& members() const;  // in the text's order

  // Member of an object; find gives nullptr, at throws when there is none.
  const Json* find(std::string_view key) const;
  const Json& at(std::string_view key) const;

 private:
  friend class JsonParser;
  [[noreturn]] void wrong_type(const char* expected) const;

  Type type_ = Type::kNull;
  bool bool_ = false;
  int64_t integer_ = 0;
  double double_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::vector<JsonMember> members_;
};

struct JsonMember {
  std::string key;
  Json value;
};

struct JsonLimits {
  int depth = 32;
  size_t values = 500000;  // about 130 bytes of memory each
};

Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits = {});

// `text` in quotation marks, escaped where JSON asks for it; must be valid UTF-8.
std::string json_quote(std::string_view text);
// The shortest text that reads back as the same double; finite values only.
std::string json_number(double value);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_JSON_H_
