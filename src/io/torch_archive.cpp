// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/torch_archive.h"

#include <cstring>
#include <deque>

#include "base/error.h"

namespace flashvsr {
namespace {

constexpr size_t kMaxPickle = 16u << 20;
constexpr size_t kMaxValues = 1u << 18;
constexpr size_t kMaxDims = 16;

enum class ValueKind { kNone, kBool, kInteger, kString, kTuple, kList, kDict, kGlobal, kStorage, kTensor };

struct Value {
  ValueKind kind = ValueKind::kNone;
  int64_t integer = 0;  // also a storage's number of elements
  std::string text;     // string, "module name" of a global, member key of a storage
  DType dtype = DType::kF32;
  std::vector<Value*> items;  // dict: key, value, key, value
  TorchTensor tensor;
};

const char* kind_name(ValueKind kind) {
  static const char* const kNames[] = {"None", "a bool", "an integer", "a string", "a tuple",
                                       "a list", "a dict", "a global", "a storage", "a tensor"};
  return kNames[static_cast<int>(kind)];
}

// A stack machine over borrowed values: all of them belong to `arena_`, so that nesting, sharing
// and cycles need no recursion to free.
class Unpickler {
 public:
  Unpickler(const std::vector<char>& data, const std::string& where, const std::string& root, const ZipArchive& zip)
      : data_(data), where_(where), root_(root), zip_(zip) {}

  const Value* run() {
    while (true) {
      const unsigned char op = byte();
      switch (op) {
        case 0x80: {  // PROTO
          const unsigned char protocol = byte();
          check(protocol >= 2 && protocol <= 5, "pickle protocol ", static_cast<int>(protocol), ", expected 2 to 5");
          break;
        }
        case '.': {  // STOP
          const Value* top = pop();
          check(stack_.empty() && marks_.empty(), "values are left over at the end");
          check(at_ == data_.size(), data_.size() - at_, " bytes follow the end");
          return top;
        }
        case '(':                                                            // MARK
          check(marks_.size() < kMaxValues, "more than ", kMaxValues, " marks");
          marks_.push_back(stack_.size());
          break;
        case 'N': push(make(ValueKind::kNone)); break;                       // NONE
        case 0x88: case 0x89: push_integer(ValueKind::kBool, op == 0x88); break;  // NEWTRUE, NEWFALSE
        case 'J': push_integer(ValueKind::kInteger, static_cast<int32_t>(little(4))); break;  // BININT
        case 'K': push_integer(ValueKind::kInteger, static_cast<int64_t>(little(1))); break;  // BININT1
        case 'M': push_integer(ValueKind::kInteger, static_cast<int64_t>(little(2))); break;  // BININT2
        case 0x8a: push_integer(ValueKind::kInteger, long1()); break;        // LONG1
        case 'X': push_text(little(4)); break;                               // BINUNICODE
        case 0x8c: push_text(little(1)); break;                              // SHORT_BINUNICODE
        case '}': push(make(ValueKind::kDict)); break;                       // EMPTY_DICT
        case ']': push(make(ValueKind::kList)); break;                       // EMPTY_LIST
        case ')': push(make(ValueKind::kTuple)); break;                      // EMPTY_TUPLE
        case 't': push_tuple(pop_to_mark()); break;                          // TUPLE
        case 0x85: case 0x86: case 0x87: {                                   // TUPLE1 .. TUPLE3
          std::vector<Value*> items(op - 0x84u);
          for (size_t i = items.size(); i-- > 0;) items[i] = pop();
          push_tuple(std::move(items));
          break;
        }
        case 's': {  // SETITEM
          Value* value = pop();
          Value* key = pop();
          set_items({key, value});
          break;
        }
        case 'u': set_items(pop_to_mark()); break;  // SETITEMS
        case 'a': append({pop()}); break;           // APPEND
        case 'e': append(pop_to_mark()); break;     // APPENDS
        case 'q': remember(little(1)); break;                              // BINPUT
        case 'r': remember(little(4)); break;                              // LONG_BINPUT
        case 'h': push(recall(static_cast<uint32_t>(little(1)))); break;   // BINGET
        case 'j': push(recall(static_cast<uint32_t>(little(4)))); break;   // LONG_BINGET
        case 'c': push_global(); break;     // GLOBAL
        case 'Q': push_storage(); break;    // BINPERSID
        case 'R': reduce(); break;          // REDUCE
        case 'b': {                         // BUILD: only a dict's attributes, which are not needed
          const Value* state = pop();
          check(state->kind == ValueKind::kDict && top()->kind == ValueKind::kDict, "BUILD of ", kind_name(top()->kind), " with ",
                kind_name(state->kind), ", expected a dict's attributes");
          break;
        }
        default: check(false, "instruction ", static_cast<int>(op), " at byte ", at_ - 1, " is not one that a state dict needs");
      }
    }
  }

 private:
  template <typename... Args>
  void check(bool condition, const Args&... args) const {
    if (!condition) throw Error(ErrorCode::kModelInvalid, concat(where_, ": ", args...));
  }

  unsigned char byte() {
    check(at_ < data_.size(), "the pickle ends too early");
    return static_cast<unsigned char>(data_[at_++]);
  }
  uint64_t little(int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; ++i) value |= static_cast<uint64_t>(byte()) << (8 * i);
    return value;
  }
  int64_t long1() {
    const unsigned char count = byte();
    check(count <= 8, "an integer of ", static_cast<int>(count), " bytes");
    if (count == 0) return 0;
    uint64_t value = little(count);
    if (count < 8 && (value >> (8 * count - 1) & 1) != 0) value |= ~uint64_t{0} << (8 * count);
    return static_cast<int64_t>(value);
  }

  Value* make(ValueKind kind) {
    check(arena_.size() < kMaxValues, "more than ", kMaxValues, " values");
    arena_.emplace_back();
    arena_.back().kind = kind;
    return &arena_.back();
  }
  void push(Value* value) {
    check(stack_.size() < kMaxValues, "more than ", kMaxValues, " values on the stack");
    stack_.push_back(value);
  }
  void remember(uint64_t index) {
    memo_[static_cast<uint32_t>(index)] = top();
    check(memo_.size() <= kMaxValues, "more than ", kMaxValues, " remembered values");
  }
  void push_integer(ValueKind kind, int64_t integer) {
    Value* value = make(kind);
    value->integer = integer;
    push(value);
  }
  std::string text(uint64_t size) {
    check(size <= data_.size() - at_, "a string of ", size, " bytes leaves the pickle");
    std::string out(&data_[at_], size);
    at_ += size;
    return out;
  }
  void push_text(uint64_t size) {
    Value* value = make(ValueKind::kString);
    if (size > 0) value->text = text(size);
    push(value);
  }
  void push_tuple(std::vector<Value*> items) {
    Value* value = make(ValueKind::kTuple);
    value->items = std::move(items);
    push(value);
  }
  // Nothing below the last mark may be taken.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value* top() const {
    check(stack_.size() > floor(), "the stack is empty");
    return stack_.back();
  }
  Value* pop() {
    Value* value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<Value*> pop_to_mark() {
    check(!marks_.empty(), "no mark on the stack");
    const std::vector<Value*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  Value* recall(uint32_t index) const {
    const auto it = memo_.find(index);
    check(it != memo_.end(), "memo ", index, " was never set");
    return it->second;
  }
  void grow(Value* container, const std::vector<Value*>& items) {
    held_ += items.size();
    check(held_ <= kMaxValues, "more than ", kMaxValues, " values");
    container->items.insert(container->items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<Value*>& items) {
    Value* dict = top();
    check(dict->kind == ValueKind::kDict && items.size() % 2 == 0, "SETITEMS on ", kind_name(dict->kind), " with ", items.size(), " values");
    grow(dict, items);
  }
  void append(const std::vector<Value*>& items) {
    Value* list = top();
    check(list->kind == ValueKind::kList, "APPEND to ", kind_name(list->kind));
    grow(list, items);
  }

  std::string line() {
    std::string out;
    for (char c = static_cast<char>(byte()); c != '\n'; c = static_cast<char>(byte())) out += c;
    return out;
  }
  void push_global() {
    const std::string module = line();
    const std::string full = module + " " + line();
    static const char* const kAllowed[] = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
                                           "torch FloatStorage", "torch BFloat16Storage", "torch HalfStorage"};
    bool is_allowed = false;
    for (const char* allowed : kAllowed) is_allowed = is_allowed || full == allowed;
    check(is_allowed, "the pickle asks for \"", printable(full), "\", which no tensor needs; nothing was executed");
    Value* value = make(ValueKind::kGlobal);
    value->text = full;
    push(value);
  }

  // ('storage', storage class, member key, location, number of elements)
  void push_storage() {
    const Value* id = pop();
    check(id->kind == ValueKind::kTuple && id->items.size() == 5 && id->items[0]->kind == ValueKind::kString &&
              id->items[0]->text == "storage" && id->items[1]->kind == ValueKind::kGlobal && id->items[2]->kind == ValueKind::kString &&
              id->items[3]->kind == ValueKind::kString && id->items[4]->kind == ValueKind::kInteger,
          "a persistent id that names no storage");
    Value* storage = make(ValueKind::kStorage);
    const std::string& type = id->items[1]->text;
    if (type == "torch FloatStorage") storage->dtype = DType::kF32;
    else if (type == "torch BFloat16Storage") storage->dtype = DType::kBF16;
    else if (type == "torch HalfStorage") storage->dtype = DType::kF16;
    else check(false, "\"", type, "\" is no storage type");
    storage->text = root_ + "/data/" + id->items[2]->text;
    storage->integer = id->items[4]->integer;
    const auto member = zip_.members().find(storage->text);
    check(member != zip_.members().end(), "storage \"", printable(storage->text), "\" is not in the archive");
    const uint64_t size = dtype_size(storage->dtype);
    check(storage->integer >= 0 && static_cast<uint64_t>(storage->integer) <= member->second.size / size &&
              static_cast<uint64_t>(storage->integer) * size == member->second.size,
          "storage \"", printable(storage->text), "\" has ", member->second.size, " bytes, expected ", storage->integer, " elements of ", size);
    push(storage);
  }

  std::vector<int64_t> integers(const Value* tuple, const char* what) const {
    check(tuple->kind == ValueKind::kTuple && tuple->items.size() <= kMaxDims, "a tensor's ", what, " is ", kind_name(tuple->kind), " of ",
          tuple->items.size(), " values");
    std::vector<int64_t> out;
    for (const Value* item : tuple->items) {
      check(item->kind == ValueKind::kInteger && item->integer >= 0, "a tensor's ", what, " holds a negative value or none");
      out.push_back(item->integer);
    }
    return out;
  }

  void reduce() {
    const Value* arguments = pop();
    const Value* function = pop();
    check(function->kind == ValueKind::kGlobal && arguments->kind == ValueKind::kTuple, "REDUCE of ", kind_name(function->kind), " with ",
          kind_name(arguments->kind));
    const auto& a = arguments->items;
    if (function->text == "collections OrderedDict") {
      check(a.empty(), "OrderedDict with ", a.size(), " arguments, expected none");
      push(make(ValueKind::kDict));
      return;
    }
    if (function->text == "torch._utils _rebuild_parameter") {
      check(!a.empty() && a[0]->kind == ValueKind::kTensor, "a parameter without a tensor");
      push(a[0]);
      return;
    }
    check(function->text == "torch._utils _rebuild_tensor_v2", "\"", function->text, "\" cannot be called");
    check(a.size() >= 6 && a.size() <= 7 && a[0]->kind == ValueKind::kStorage && a[1]->kind == ValueKind::kInteger, "a tensor with ",
          a.size(), " arguments, expected storage, offset, size, stride, flag and hooks");
    Value* value = make(ValueKind::kTensor);
    TorchTensor& tensor = value->tensor;
    tensor.dtype = a[0]->dtype;
    tensor.storage = a[0]->text;
    tensor.offset = a[1]->integer;
    tensor.shape = integers(a[2], "size");
    tensor.stride = integers(a[3], "stride");
    check(tensor.shape.size() == tensor.stride.size(), "a tensor with ", tensor.shape.size(), " sizes and ", tensor.stride.size(), " strides");
    const int64_t elements = a[0]->integer;
    uint64_t bytes = 0;
    check(checked_bytes(tensor.shape, tensor.dtype, &bytes) && bytes / dtype_size(tensor.dtype) <= static_cast<uint64_t>(elements),
          "a tensor of ", shape_text(tensor.shape), " is larger than its storage of ", elements, " elements");
    // Every size is now at most `elements`; the last index is checked step by step against overflow.
    check(tensor.offset >= 0 && tensor.offset <= elements, "offset ", tensor.offset, " in a storage of ", elements, " elements");
    int64_t last = tensor.offset;
    if (bytes > 0) {
      for (size_t i = 0; i < tensor.shape.size(); ++i) {
        const int64_t steps = tensor.shape[i] - 1;
        check(steps == 0 || tensor.stride[i] <= (elements - last) / steps, "a tensor of ", shape_text(tensor.shape), " with strides ",
              shape_text(tensor.stride), " at offset ", tensor.offset, " leaves its storage of ", elements, " elements");
        last += steps * tensor.stride[i];
      }
      check(last < elements, "a tensor of ", shape_text(tensor.shape), " at offset ", tensor.offset, " leaves its storage of ", elements,
            " elements");
    }
    push(value);
  }

  const std::vector<char>& data_;
  const std::string where_, root_;
  const ZipArchive& zip_;
  size_t at_ = 0;
  size_t held_ = 0;
  std::deque<Value> arena_;
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::map<uint32_t, Value*> memo_;
};

}  // namespace

uint64_t TorchTensor::bytes() const {
  uint64_t bytes = 0;
  checked_bytes(shape, dtype, &bytes);
  return bytes;
}

bool TorchTensor::is_row_major() const {
  int64_t expected = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] != 1 && stride[d] != expected) return false;
    expected *= shape[d];
  }
  return true;
}

TorchArchive::TorchArchive(const std::string& path) : zip_(path) {
  std::string pickle_name;
  for (const auto& item : zip_.members()) {
    const std::string& name = item.first;
    if (name.size() > 9 && name.compare(name.size() - 9, 9, "/data.pkl") == 0) {
      FLASHVSR_CHECK(pickle_name.empty(), ErrorCode::kModelInvalid, path, ": two pickles, ", printable(pickle_name), " and ", printable(name));
      pickle_name = name;
    }
  }
  FLASHVSR_CHECK(!pickle_name.empty(), ErrorCode::kModelInvalid, path, ": no member ends in /data.pkl; not a torch.save archive");
  FLASHVSR_CHECK(zip_.members().at(pickle_name).size <= kMaxPickle, ErrorCode::kModelInvalid, path, ": a pickle of ",
                 zip_.members().at(pickle_name).size, " bytes, at most ", kMaxPickle, " are expected");
  const std::string root = pickle_name.substr(0, pickle_name.size() - 9);
  const auto order = zip_.members().find(root + "/byteorder");
  if (order != zip_.members().end()) {
    FLASHVSR_CHECK(order->second.size <= 16, ErrorCode::kModelInvalid, path, ": the byte order has ", order->second.size, " letters");
    const std::vector<char> text = zip_.read(order->first);
    FLASHVSR_CHECK(std::string(text.begin(), text.end()) == "little", ErrorCode::kModelInvalid, path, ": the byte order is \"",
                   std::string(text.begin(), text.end()), "\", expected \"little\"");
  }
  const std::vector<char> pickle = zip_.read(pickle_name);
  Unpickler unpickler(pickle, path + ": " + printable(pickle_name), root, zip_);
  const Value* top = unpickler.run();
  if (top->kind == ValueKind::kTensor) {
    tensors_.emplace("", top->tensor);
    return;
  }
  FLASHVSR_CHECK(top->kind == ValueKind::kDict, ErrorCode::kModelInvalid, path, ": holds ", kind_name(top->kind), ", expected tensors");
  for (size_t i = 0; i < top->items.size(); i += 2) {
    if (top->items[i]->kind == ValueKind::kString && top->items[i]->text == "model_state" &&
        top->items[i + 1]->kind == ValueKind::kDict) {
      top = top->items[i + 1];
      break;
    }
  }
  for (size_t i = 0; i < top->items.size(); i += 2) {
    const Value* key = top->items[i];
    const Value* value = top->items[i + 1];
    FLASHVSR_CHECK(key->kind == ValueKind::kString && value->kind == ValueKind::kTensor, ErrorCode::kModelInvalid, path, ": entry \"",
                   printable(key->text), "\" is ", kind_name(value->kind), ", expected a tensor with a name");
    FLASHVSR_CHECK(tensors_.emplace(key->text, value->tensor).second, ErrorCode::kModelInvalid, path, ": \"", printable(key->text),
                   "\" appears twice");
  }
  uint64_t total = 0;
  for (const auto& item : tensors_) {
    total += item.second.bytes();  // each at most the file's size, and they are few: no overflow
    FLASHVSR_CHECK(total <= 2 * zip_.file_size(), ErrorCode::kModelInvalid, path, ": its tensors take ", total,
                   " bytes and more, the file has ", zip_.file_size());
  }
}

void TorchArchive::read(const TorchTensor& tensor, void* out) {
  const size_t size = dtype_size(tensor.dtype);
  const uint64_t count = tensor.bytes() / size;
  if (count == 0) return;
  auto it = storages_.find(tensor.storage);
  if (it == storages_.end() && tensor.is_row_major() && tensor.bytes() == zip_.members().at(tensor.storage).size) {
    zip_.read(tensor.storage, out);  // the whole storage, as it lies there
    return;
  }
  if (it == storages_.end()) it = storages_.emplace(tensor.storage, zip_.read(tensor.storage)).first;
  const char* storage = it->second.data();
  char* to = static_cast<char*>(out);

  // Row by row of the last dimension; contiguous rows in one piece.
  const size_t dims = tensor.shape.size();
  const int64_t row = dims == 0 ? 1 : tensor.shape[dims - 1];
  const int64_t step = dims == 0 ? 1 : tensor.stride[dims - 1];
  std::vector<int64_t> index(dims, 0);
  for (uint64_t done = 0; done < count; done += static_cast<uint64_t>(row)) {
    int64_t from = tensor.offset;
    for (size_t d = 0; d + 1 < dims; ++d) from += index[d] * tensor.stride[d];
    if (step == 1 || row == 1) {
      std::memcpy(to, storage + static_cast<size_t>(from) * size, static_cast<size_t>(row) * size);
    } else {
      for (int64_t i = 0; i < row; ++i) {
        std::memcpy(to + static_cast<size_t>(i) * size, storage + static_cast<size_t>(from + i * step) * size, size);
      }
    }
    to += static_cast<size_t>(row) * size;
    for (size_t d = dims < 2 ? 0 : dims - 1; d-- > 0;) {
      if (++index[d] < tensor.shape[d]) break;
      index[d] = 0;
    }
  }
}

}  // namespace flashvsr
