#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

// The syntax tree of a template.
namespace braid::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Arg {
  enum class Kind { kPositional, kKeyword, kUnpackList, kUnpackDict };
  Kind kind;
  std::string name;  // of kKeyword
  ExprPtr value;
};

// One kind of node uses only the fields named beside it.
struct Expr {
  enum class Kind {
    kConst,   // value
    kName,    // text
    kList,    // children
    kTuple,   // children
    kDict,    // children: key, value, key, value, ...
    kAttr,    // children[0] . text
    kItem,    // children[0] [ children[1] ]
    kSlice,   // children[0] [ children[1] : [2] : [3] ], absent ones are null
    kCall,    // children[0] ( args )
    kFilter,  // children[0] | text ( args ); children[0] is null in filter blocks
    kTest,    // children[0] is text ( args )
    kNot,     // children[0]
    kNeg,
    kPos,
    kAnd,  // children[0], children[1]
    kOr,
    kBinary,   // children[0] text children[1]
    kConcat,   // children
    kCompare,  // children[0] ops[0] children[1] ops[1] children[2] ...
    kCond,     // children[1] if children[0] else children[2], which may be null
  };
  Kind kind;
  int line;
  int depth = 1;  // of the tree below
  std::string text = {};
  Value value = {};
  std::vector<ExprPtr> children = {};
  std::vector<Arg> args = {};
  std::vector<std::string> ops = {};
};

struct Stmt;
using Body = std::vector<Stmt>;

struct MacroDef {
  std::string name;
  std::vector<std::string> params;
  std::vector<ExprPtr> defaults;  // of the last params
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
  Body body;
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kPrint,     // expr
    kFor,       // target, expr (what is iterated), condition or null, body, orelse
    kIf,        // branches, orelse
    kSet,       // target, expr
    kSetBlock,  // target, filter chain in expr or null, body
    kMacro,     // macro
    kCall,      // expr (a call), macro (of the caller)
    kFilter,    // expr (filter chain), body
    kWith,      // assignments, body
    kBlock,     // body
    kBreak,
    kContinue,
  };
  Kind kind;
  int line;
  std::string text = {};
  ExprPtr target = {};
  ExprPtr expr = {};
  ExprPtr condition = {};
  Body body = {};
  Body orelse = {};
  std::vector<std::pair<ExprPtr, Body>> branches = {};        // of if and elif
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments = {};  // target, value
  std::unique_ptr<MacroDef> macro = {};
  bool uses_loop = false;     // a for whose body says "loop"
  bool is_recursive = false;  // a for that may call itself
};

}  // namespace braid::text::jinja
