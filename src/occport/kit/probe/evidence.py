"""What the results say about one answer: yes, no, or nothing."""

from __future__ import annotations

from enum import Enum

from .results import COMPILED, FAILED, NOT_RUN, WRONG, Result, Results


class Verdict(Enum):
    """Of one answer. UNKNOWN: not run, or asked in a file that the compiler refuses for another reason."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


CUSTOM_NODES = ("msda", "dcn", "dcn_bias", "functions")
_WORDS = {"opset": "opset", "ir": "IR version"}


class Evidence:
    """The results by question and answer. A probe that was taken also says that its opset and IR version are."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._known: dict[tuple[str, str], Verdict] = {}
        honest = [result for result in results.results if result.question != "control"]
        self.opsets = {result.opset for result in honest if result.taken}
        self.irs = {result.ir for result in honest if result.taken}

    def refuses_opset(self, opset: int) -> bool:
        """Whether files of an opset were tried and none was taken."""
        return opset not in self.opsets and any(one.grade != NOT_RUN for one in self.about("opset", str(opset)))

    def about(self, question: str, value: str) -> list[Result]:
        """The probes of one answer."""
        return [result for result in self.results.of(question) if result.value == value]

    def verdict(self, question: str, value: str) -> Verdict:
        """What the probes of one answer say."""
        if (question, value) not in self._known:
            self._known[question, value] = self._verdict(question, value)
        return self._known[question, value]

    def _verdict(self, question: str, value: str) -> Verdict:
        found = self.about(question, value)
        if any(self._proves(result) for result in found):
            return Verdict.YES
        if question == "opset" and int(value) in self.opsets and all(result.grade == NOT_RUN for result in found):
            return Verdict.YES
        if any(result.grade == WRONG or (result.grade == FAILED and self.fair(result)) for result in found):
            return Verdict.NO
        return Verdict.UNKNOWN

    def fair(self, result: Result) -> bool:
        """Whether a probe was asked in a file whose opset and IR version are both taken elsewhere."""
        return result.opset in self.opsets and result.ir in self.irs

    def _proves(self, result: Result) -> bool:
        """Whether being taken says something: to compile a custom node is no proof where a node that nobody has compiles too."""
        return result.taken and not (result.grade == COMPILED and result.question in CUSTOM_NODES and self.takes_all())

    def takes_all(self) -> bool:
        """Whether the control was taken too, so that nothing is proved by being taken without values."""
        return any(result.taken for result in self.results.of("control"))

    def contradictions(self) -> list[str]:
        """What does not go together, in sentences."""
        found = []
        if self.takes_all():
            found.append("the control, an operator that nobody has, was taken: what was compiled only proves nothing here")
        for question, known, kind in (("opset", self.opsets, "opset"), ("ir", self.irs, "ir")):
            for result in self.results.of(question):
                if result.grade == FAILED and int(result.value) in known:
                    other = next(one.name for one in self.results.results if one.taken and getattr(one, kind) == int(result.value))
                    found.append(f"{result.name} was refused, but {other}, of the same {_WORDS[kind]}, was taken")
        for result in self.results.results:
            if result.grade == WRONG:
                found.append(f"{result.name} was compiled and gave wrong values ({result.detail})")
        return found
