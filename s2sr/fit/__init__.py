"""How the field is solved for: stages, schedules, losses and the LightningModule that runs them."""
