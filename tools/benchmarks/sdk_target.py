"""An SDK target with a no-op sink: the overhead of the SDK's own path."""

from singer_sdk import BatchSink, Target


class SinkNothing(BatchSink):
    """A sink that drops its batches."""

    def process_batch(self, context):
        """Do nothing."""


class TargetNothing(Target):
    """The SDK's defaults, with its validation of records."""

    name = "target-nothing"
    config_jsonschema = {"type": "object", "properties": {}}  # noqa: RUF012 - as the SDK has it
    default_sink_class = SinkNothing


if __name__ == "__main__":
    TargetNothing.cli()
