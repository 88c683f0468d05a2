"""The parameters of a tool, in every notation of published data sets, as one JSON Schema object.

Knows nesting: objects, lists, unions and references inside each other. What a specification or a set of them says is
for `specs`; it does not know tools or wrappers.

The result is made for FunctionGemma's chat template: every parameter has one concrete `type` of JSON Schema, every
object has `properties` (the template takes a mapping without them for a list of parameters), and `required` lists
existing properties only. A union of types is shown as one of them and kept whole under `anyOf`; objects that are
composed of others (allOf, anyOf, oneOf) become one. A reference is replaced by what it names; inside itself it becomes
an object or value without further detail. Type words are those of `types`; unknown ones become "string".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.schema import composition, specs
from fgtools.schema.facts import describe_facts
from fgtools.schema.limits import MAX_NODES, LimitError
from fgtools.schema.literals import MAX_RAW_DEPTH, decode_text
from fgtools.schema.references import Definitions, find_reference
from fgtools.schema.specs import Spec
from fgtools.schema.types import parse_type
from fgtools.schema.unions import alternatives, distinct, widest, without_alternatives

_STRUCTURE_WORDS = frozenset({"type", "items", "properties", "additionalProperties", "not", "if", "then", "else"})


def parse_parameters(
    raw: Any, beside: Any = None, documents: Sequence[Any] = ()
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Parse the parameters of a tool.

    A parameter is required when it says so itself, or else when a `required` list (inside or beside) names it. Without
    such a list a JSON Schema requires nothing; the other two notations require everything that has no default and is
    not called optional by its text. A parameter that is marked optional is never required.

    Args:
        raw: The parameters field: a mapping, a list of named arguments, text of either, or None.
        beside: The `required` field beside the parameters, or None.
        documents: Where references are looked up after the parameters themselves: the tool, and what encloses it.

    Returns:
        A fresh {"type": "object", "properties", "required"} with the valid keywords of `raw`, and what that changed, as
        (kind, detail) pairs; see `schema.Change`.

    Raises:
        LimitError: The parameters nest too deep or have too many parts.
        ValueError: The field is text that cannot be parsed.
    """
    is_encoded = isinstance(raw, str) and raw.strip()
    raw = decode_text(raw) if is_encoded else raw
    parser = ParameterParser(raw, documents)
    parser.changes.extend([("text_decoded", "parameters")] if is_encoded else [])
    schema = parser.parse_set(raw, beside, 0)
    return schema, tuple(dict.fromkeys(parser.changes))


class ParameterParser:
    """Parses one tool's parameters; holds its definitions, counts the specifications and notes the changes."""

    def __init__(self, root: Any, documents: Sequence[Any] = ()) -> None:
        """Take the parameters, and where references are looked up after them."""
        self.definitions = Definitions([root, *documents])
        self.open_targets: list[int] = []  # identities of the definitions that are being parsed
        self.changes: list[tuple[str, str]] = []
        self.nodes = 0

    def parse_set(self, raw: Any, beside: Any, depth: int) -> dict[str, Any]:
        """Return the schema of several parameters, `depth` objects or lists below the tool's own."""
        raw = self._compose(self._dereference(raw), depth, True)
        if isinstance(beside, (list, tuple, str, Mapping)) and beside:
            self.changes.append(("required_moved", ""))
        if isinstance(raw, (list, tuple)) and len(raw) == 1 and isinstance(raw[0], Mapping) and specs.is_schema(raw[0]):
            raw = raw[0]  # a schema in a list of its own
        raw = (specs.split_entries(raw) or raw) if isinstance(raw, Mapping) else raw
        if isinstance(raw, (list, tuple)):
            self.changes.append(("listed_parameters", ""))
            entries, left = specs.named_entries(raw)
            self.changes.extend(("parameter_dropped", one) for one in left)
            return self._build_object({}, entries, [beside], True, depth)
        if not isinstance(raw, Mapping):
            return self._build_object({}, {}, [beside], False, depth)
        required = raw.get("required")
        if specs.is_schema(raw):
            self._note_type(raw.get("type"), "object")
            return self._build_object(raw, specs.schema_entries(raw), [beside, required], False, depth)
        self.changes.extend([("flat_parameters", "")] if raw else [])
        listed = [beside, None if isinstance(required, Mapping) else required]  # a mapping: a parameter of that name
        return self._build_object({}, specs.flat_entries(raw), listed, True, depth)

    def _build_object(
        self, meta: Mapping[str, Any], entries: Mapping[str, Any], listed: list[Any], flat: bool, depth: int
    ) -> dict[str, Any]:
        filled = specs.filled_names(entries, listed, flat)
        self.changes.extend(("null_parameter", name[:80]) for name in filled)
        own = {name: entry for name, entry in entries.items() if name not in set(filled)} if filled else entries
        parsed = {name: self.parse_spec(entry, depth + 1) for name, entry in own.items()}
        result: dict[str, Any] = {"type": "object"}
        result.update(specs.description_of(meta))
        result["properties"] = {name: spec.schema for name, spec in parsed.items()}
        result["required"] = specs.required_names(parsed, listed, flat)
        absent = [name for names in listed for name in specs.listed_names(names) if name not in parsed]
        self.changes.extend(("required_dropped", name[:80]) for name in absent)
        extra = meta.get("additionalProperties")
        if isinstance(extra, bool):
            result["additionalProperties"] = extra
        elif isinstance(extra, (Mapping, str)):
            result["additionalProperties"] = self.parse_spec(extra, depth + 1).schema
        result.update(specs.keywords_of(meta))
        self._note_dropped(meta)
        return result

    def parse_spec(self, raw: Any, depth: int) -> Spec:
        """Parse a type word, a specification mapping, a list of types, a plain sentence, or None."""
        self._count_node(depth)
        opened = len(self.open_targets)
        raw = self._decode(self._dereference(raw))
        try:
            if isinstance(raw, str):
                spec = specs.parse_sentence(raw)
                self._note_type(raw, spec.schema["type"])
                return spec
            if isinstance(raw, (list, tuple)):
                only_words = all(isinstance(item, str) for item in raw)
                return Spec(self._parse_type_list(raw, depth) if only_words else {"type": "string"})
            if isinstance(raw, Mapping):
                return self._parse_mapping(self._compose(raw, depth), depth)
            return Spec({"type": "string"})
        finally:
            del self.open_targets[opened:]

    def _count_node(self, depth: int) -> None:
        self.nodes += 1
        if depth > MAX_RAW_DEPTH or self.nodes > MAX_NODES:
            raise LimitError(
                f"parameters nest deeper than {MAX_RAW_DEPTH} levels or hold more than {MAX_NODES} parts, with what "
                "references name: flatten or shorten the tool"
            )

    def _decode(self, raw: Any) -> Any:
        """Decode a specification that is the JSON text of one."""
        if isinstance(raw, str) and raw.lstrip().startswith("{"):
            try:
                decoded = decode_text(raw)
            except ValueError:
                return raw
            if isinstance(decoded, Mapping):
                self.changes.append(("text_decoded", "specification"))
                return decoded
        return raw

    def _parse_mapping(self, raw: Mapping[str, Any], depth: int) -> Spec:
        if raw and all(isinstance(value, Mapping) for value in raw.values()) and not set(raw) <= _STRUCTURE_WORDS:
            nested = self.parse_set(raw, None, depth + 1)
            return Spec({word: value for word, value in nested.items() if word != "required" or value})
        if (own := specs.without_nulls(raw)) is not raw:
            self.changes.extend(("null_keyword", word[:80]) for word in raw if word not in own)
            raw = own
        base, optional = self._parse_base(raw, depth)
        schema: dict[str, Any] = {"type": base.pop("type")}
        schema.update(specs.description_of(raw) or specs.description_of(base))
        text, kinds = describe_facts(raw, schema.get("description", ""))
        schema.update({"description": text} if text else {})
        self.changes.extend((kind, "") for kind in kinds)
        schema.update(specs.choices_of(raw) or ({"enum": base["enum"]} if "enum" in base else {}))
        if schema["type"] == "array":
            schema.update(self._parse_items(raw, base, depth))
        if schema["type"] == "object":
            schema.update(self._parse_nested(raw, base, depth))
        schema.update({word: value for word, value in base.items() if word in specs.KEPT_WORDS})
        schema.update(self._build_any_of(raw, base, depth))
        schema.update(specs.keywords_of(raw))
        if raw.get("example") is not None and "examples" not in schema and schema["type"] != "object":
            schema.update(specs.plain_entry("examples", [raw["example"]]))
        schema.update({"default": base["default"]} if "default" in base else {})
        schema.update(specs.plain_entry("default", raw["default"]) if "default" in raw else {})
        self._note_dropped(raw)
        if "default" in schema and schema["default"] is None and schema["type"] != "null":
            schema["nullable"] = True  # a default of null means that null is allowed
        hint = "default" in raw or raw.get("nullable") is True or specs.says_optional(raw)
        return Spec(schema, specs.is_marked_optional(raw, optional), hint)

    def _build_any_of(self, raw: Mapping[str, Any], base: dict[str, Any], depth: int) -> dict[str, Any]:
        """Return {"anyOf"} where the one type that is shown stands for several."""
        if "anyOf" in base:
            return {"anyOf": base["anyOf"]}
        given = raw.get("anyOf") if isinstance(raw.get("type"), str) else None
        if not isinstance(given, (list, tuple)):
            return {}
        found = alternatives([self.parse_spec(one, depth + 1).schema for one in given])
        return {"anyOf": found} if found else {}

    def _parse_base(self, raw: Mapping[str, Any], depth: int) -> tuple[dict[str, Any], bool | None]:
        """Return a schema with a concrete type, from `type` or what stands for it, and whether it says optional."""
        kind = raw.get("type")
        if isinstance(kind, str) and kind.strip():
            parsed = parse_type(kind)
            has_structure = any(isinstance(raw.get(word), Mapping) for word in ("properties", "items"))
            if parsed.known or not has_structure:
                self._note_type(kind, parsed.schema["type"], parsed.known)
                return parsed.schema, parsed.optional
        elif isinstance(kind, (list, tuple)) and kind:
            return self._parse_type_list(kind, depth), None
        elif isinstance(kind, Mapping):
            inner = self.parse_spec(kind, depth + 1)
            return dict(inner.schema), inner.optional
        for word in ("anyOf", "oneOf"):
            if isinstance(raw.get(word), (list, tuple)) and raw[word]:
                return self._parse_type_list(raw[word], depth), None
        return {"type": specs.inferred_type(raw)}, None

    def _note_type(self, kind: Any, shown: str, known: bool = True) -> None:
        if isinstance(kind, str) and kind != shown:
            self.changes.append(("type_word" if known else "unknown_type", f"{kind[:60]} -> {shown}"))

    def _parse_type_list(self, kinds: Any, depth: int) -> dict[str, Any]:
        schemas = [self.parse_spec(kind, depth + 1).schema for kind in kinds]
        real = [schema for schema in schemas if schema["type"] != "null"]
        if not schemas:
            return {"type": "string"}
        if not real:
            return {"type": "null"}
        nullable = {"nullable": True} if len(real) < len(schemas) else {}
        narrowed = {**widest(real), **nullable}
        others = alternatives(real)
        if others:
            self.changes.append(("union_narrowed", f"{'|'.join(one['type'] for one in others)} -> {narrowed['type']}"))
            narrowed["anyOf"] = others
        elif len(distinct(real)) > 1:
            self.changes.append(("union_merged", f"{len(distinct(real))} -> {narrowed['type']}"))
        return narrowed

    def _parse_items(self, raw: Mapping[str, Any], base: dict[str, Any], depth: int) -> dict[str, Any]:
        items = raw.get("items")
        if isinstance(raw.get("prefixItems"), (list, tuple)) and raw["prefixItems"]:
            items = [*raw["prefixItems"], *([items] if isinstance(items, Mapping) and items else [])]
        if isinstance(items, (list, tuple)) and items:
            return {"items": without_alternatives(self._parse_type_list(items, depth))}
        if isinstance(items, (Mapping, str)) and items:
            schema = without_alternatives(self.parse_spec(items, depth + 1).schema)
            if isinstance(items, Mapping) and "examples" not in items:
                schema.pop("examples", None)  # made of `example`; the template would print it as data
            return {"items": schema}
        return {"items": base["items"]} if "items" in base and items != {} else {}

    def _parse_nested(self, raw: Mapping[str, Any], base: dict[str, Any], depth: int) -> dict[str, Any]:
        entries = specs.schema_entries(raw)
        meta = {"additionalProperties": raw.get("additionalProperties")}
        nested = self._build_object(meta, entries, [raw.get("required")], False, depth)
        if not entries:
            nested.update({word: base[word] for word in ("properties", "required") if word in base})
        if "additionalProperties" in base:
            nested.setdefault("additionalProperties", base["additionalProperties"])
        return {word: value for word, value in nested.items() if word != "type" and (word != "required" or value)}

    def _note_dropped(self, raw: Mapping[str, Any]) -> None:
        if not specs.DROPPED_WORDS.isdisjoint(raw):
            self.changes.extend(("keyword_dropped", word) for word in raw if word in specs.DROPPED_WORDS)

    def _dereference(self, raw: Any) -> Any:
        """Replace a reference by what it names; inside itself it becomes a schema with its type alone."""
        while isinstance(raw, Mapping) and (word := find_reference(raw)):
            name = raw[word]
            beside = {key: value for key, value in raw.items() if key != word}
            target = self.definitions.find(name)
            if target is None:
                self.changes.append(("reference_unresolved", name[:80]))
                return beside
            if id(target) in self.open_targets:
                self.changes.append(("recursion_cut", name[:80]))
                return {"type": target.get("type", "object"), **beside}
            self.changes.append(("reference_inlined", name[:80]))
            self.open_targets.append(id(target))
            raw = {**target, **beside}
        return raw

    def _compose(self, raw: Any, depth: int, whole: bool = False) -> Any:
        """Merge a schema that is composed of others into one; `whole` for the parameters of a tool or an object."""
        if not isinstance(raw, Mapping) or composition.WORDS.isdisjoint(raw):
            return raw
        if parts := composition.branches_of(raw, "allOf"):
            own = {word: value for word, value in raw.items() if word != "allOf"}
            raw = composition.merge_all([*self._expand(parts, depth), own])
            self.changes.append(("composition_merged", "allOf"))
        if parts := composition.optional_branches_of(raw):
            raw = composition.merge_optional(raw, self._expand(parts, depth))
            self.changes.append(("composition_merged", "then"))
        for word in composition.UNION_WORDS:
            raw = self._merge_union(raw, word, depth, whole)
        return raw

    def _merge_union(self, raw: Mapping[str, Any], word: str, depth: int, whole: bool) -> Mapping[str, Any]:
        parts = composition.branches_of(raw, word)
        if not parts:
            return raw
        opened, noted = len(self.open_targets), len(self.changes)
        branches = self._expand(parts, depth)
        own = {key: value for key, value in raw.items() if key != word}
        objects = [one for one in branches if composition.is_object(one)]
        others = [one for one in branches if not composition.is_object(one) and not composition.is_null(one)]
        is_own = composition.is_object(own)
        nullable = len(objects) == 1 < len(branches)  # one object or null: no union of objects
        if objects and (whole or (not others and (is_own or ("type" not in own and not nullable)))):
            self.changes.append(("composition_merged", word))
            self.changes.extend(("branch_dropped", str(one)[:80]) for one in others)
            return composition.merge_branches(own, [*objects, *filter(composition.is_null, branches)])
        del self.open_targets[opened:], self.changes[noted:]
        if whole and (is_own or not objects):
            self.changes.extend(("branch_dropped", str(one)[:80]) for one in branches)
            return own
        return raw

    def _expand(self, branches: Sequence[Any], depth: int) -> list[Any]:
        """Return branches without references, each composed of one; what they refer to stays open."""
        opened = len(self.open_targets)
        expanded, targets = [], []
        for branch in branches:
            self._count_node(depth + 1)
            expanded.append(self._compose(self._dereference(branch), depth + 1))
            targets += self.open_targets[opened:]
            del self.open_targets[opened:]
        self.open_targets += targets
        return expanded
