-- models/moods.sql
{{ config(
    materialized='mistral_batch',
    custom_id='id',
    system='Judge the mood of this ticket.',
    output='STRUCT(mood VARCHAR, score DOUBLE)'
) }}
SELECT id, product, body AS prompt FROM {{ ref('tickets') }}
