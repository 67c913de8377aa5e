"""The one exception family: whatever masterkey refuses, it refuses with a ``MasterkeyError``.

A message says which file or name, what was expected, what was found and, where it helps, what to do.
"""


class MasterkeyError(Exception):
    """Root of the family; the command line prints it as one sentence and exits with 1."""


class UnknownNameError(MasterkeyError):
    """A bank, model or built-in name that does not exist or is not a valid name."""


class BankFormatError(MasterkeyError):
    """A bank file that is not what docs/format.md says, or whose content does not match its hash."""


class UnreadableError(BankFormatError):
    """A file that this process cannot read now (permissions, too many open files, memory); it may well be sound."""


class NewerFormatError(BankFormatError):
    """A bank file of a format that is newer than this masterkey; it may well be sound."""


class CheckpointError(MasterkeyError):
    """A source checkpoint that cannot be read safely, or that holds no filters of the kind asked for."""


class SaveError(MasterkeyError):
    """A file that could not be written; what stood there before is intact."""


class NoTargetLayersError(MasterkeyError):
    """A model without a single layer of the kind that a bank could go into."""


class PlanError(MasterkeyError):
    """A bank that does not fit the model under the chosen policy and rules."""


class NothingMeantError(PlanError):
    """A selection that means no layer of a bank, or a step of the algebra that leaves no filter."""


class NotInjectedError(MasterkeyError):
    """An operation on the bank inside a model that holds none."""


class IsBankError(CheckpointError):
    """A checkpoint that is no network's but a bank, whose filters are out already."""


class RecipeError(MasterkeyError):
    """A recipe that cannot be understood, or whose source is not what it says."""


class QualityError(MasterkeyError):
    """A bank most of whose filters are in degenerate layers, which is built or published only on request."""


class PublishError(MasterkeyError):
    """A bank that must not be published as it is, or that the Hub did not take; the repository is as it was."""


class HubError(MasterkeyError):
    """Something on the Hub or another server that is not there, may not be read, or did not arrive whole."""
