"""Keep and pace what shared polls poll, and poll what notifications name."""

from __future__ import annotations

import django.core.validators
from django.db import migrations, models

import realtime.models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0003_proxies"),
    ]

    operations = [
        migrations.AddField(
            model_name="namespace",
            name="shared_poll_backpressure_max_interval",
            field=realtime.models.SecondsField(
                db_default=0.0,
                default=0.0,
                help_text="While the backend is slow, poll it less often, down to once in this time. 0: as often as ever.",
            ),
        ),
        migrations.AddField(
            model_name="namespace",
            name="shared_poll_keep_latest_data",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Each server keeps the latest value of every followed key: followers who come later have it at once (with the mode versioned in the very reply), and deltas can be made.",
            ),
        ),
        migrations.AddField(
            model_name="namespace",
            name="shared_poll_notification_batch_max_delay",
            field=realtime.models.SecondsField(
                db_default=0.0,
                default=0.0,
                help_text="Poll keys that notifications name so late after the first. 0: the value of <code>shared_poll.notification</code> in the process options.",
            ),
        ),
        migrations.AddField(
            model_name="namespace",
            name="shared_poll_notification_batch_max_size",
            field=models.IntegerField(
                db_default=0,
                default=0,
                help_text="Poll keys that notifications name as soon as there are so many. 0: the value of <code>shared_poll.notification</code> in the process options.",
                validators=[
                    django.core.validators.MinValueValidator(-2147483647),
                    django.core.validators.MaxValueValidator(2147483647),
                ],
            ),
        ),
    ]
